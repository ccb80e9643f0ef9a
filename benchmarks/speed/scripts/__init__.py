"""What is measured beside ckptfix: each file is a whole program."""
