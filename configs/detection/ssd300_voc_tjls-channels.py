# The transformer of Eq. 1 and 2 to the letter, for the record.
_base_ = ['../_base_/trials/ssd300_voc.py', '../_base_/methods/tjls_channels.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
