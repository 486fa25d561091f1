"""The operators answer in Python: python operators_test.py LIBBLT_OPS LIBTORCH_VERSION. Exit status 77: skipped."""
import sys

try:
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
library, version = sys.argv[1:]
if torch.__version__ != version:
    print(f"skipped: this Python's torch is {torch.__version__}, libblt's LibTorch is {version}")
    sys.exit(77)

torch.ops.load_library(library)
x = torch.tensor([[1.0, 8.0], [3.0, 2.0], [5.0, 4.0]], requires_grad=True)
offsets = torch.tensor([0, 2, 3], dtype=torch.int32)
pooled, _ = torch.ops.blt.segment_pool(x, offsets, 2, "max")
assert torch.equal(pooled, torch.tensor([[3.0, 8.0], [5.0, 4.0]])), pooled
pooled.sum().backward()
assert torch.equal(x.grad, torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])), x.grad
