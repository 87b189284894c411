# TJLS on synthetic faces for CK+48, a learner and schedule for two CPU cores. The
# start is all real images, and every stage adds synthetic ones, whose labels are
# free: paper, Sec. 4.3. The data:
#   python tools/make_synthetic_pool.py data/ck48 data/ck48_synthetic \
#       --subject-pattern '^(S\d+)_'
_base_ = [
    '_base_/models/resnet18_small.py',
    '_base_/data/ck48_synthetic.py',
    '_base_/schedules/short_classification.py',
    '_base_/runtime_classification.py',
]

active_learning = dict(
    initial='real/',  # all images whose ids begin so
    budget=400,
    stages=4,
    console='summary',
)
train_cfg = dict(max_epochs=15)
param_scheduler = [
    dict(
        type='OneCycleLR',
        by_epoch=True,
        eta_max=0.1,
        total_steps=15,
        pct_start=0.3,
    ),
]
data_preprocessor = dict(channels_last=True)  # faster on a CPU
model = dict(
    backbone=dict(in_channels=1),
    head=dict(
        num_classes=7,
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
