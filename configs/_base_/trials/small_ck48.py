# Synthetic faces for CK+48, a learner and schedule for two CPU cores. The start is all
# real images, and every stage adds synthetic ones, whose labels are free: TJLS,
# Sec. 4.3. data/ck48_synthetic has to hold real/<class>, synthetic/<class> and
# test/<class>, split by subject: nobody in test is in real or synthetic.
_base_ = [
    '../models/resnet18_small.py',
    '../data/ck48_synthetic.py',
    '../schedules/short_classification.py',
    '../runtime_classification.py',
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
model = dict(backbone=dict(in_channels=1), head=dict(num_classes=7))
