# Synthetic faces for RaFD, TJLS, Sec. 4.3: the start is all real images, and every
# stage adds synthetic ones, whose labels are free. The paper gives no learner,
# schedule, budget or number of stages for it: learner and schedule are those of
# Sec. 4.1, budget and stages are our choice.
_base_ = [
    '../models/resnet18_cifar.py',
    '../data/rafd_synthetic.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]

active_learning = dict(
    initial='real/',  # all images whose ids begin so
    budget=500,
    stages=5,
)
model = dict(head=dict(num_classes=8))
