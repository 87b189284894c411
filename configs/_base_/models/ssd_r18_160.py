# A small SSD for 160 x 160 images that trains from random weights in minutes on two
# CPU cores. Every stride satisfies: feature map size == ceil(160 / stride).
input_size = 160
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,
        out_indices=(1, 2, 3),
        # No pretrained weights exist for this width: everything is trained.
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(
        type='SSDNeck',
        in_channels=(32, 64, 128),
        out_channels=(32, 64, 128, 128),
        level_strides=(2,),
        level_paddings=(1,),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    bbox_head=dict(
        type='SSDHead',
        num_classes=5,
        in_channels=(32, 64, 128, 128),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            input_size=input_size,
            scale_major=False,
            # 20, 10, 5 and 3 locations a side; 54 instead of 64 keeps the last
            # level's anchor centres inside the image.
            strides=[8, 16, 32, 54],
            ratios=([2], [2], [2], [2]),
            min_sizes=[20, 36, 58, 86],
            max_sizes=[36, 58, 86, 120],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            # SSD has 0.5; more positives teach more in a schedule of minutes.
            pos_iou_thr=0.4,
            neg_iou_thr=0.4,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=400,
        nms=dict(type='nms', iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=50,
    ),
)
