"""The layout of torch.distributed.checkpoint: its metadata, and the boxes that tensors are saved in."""
