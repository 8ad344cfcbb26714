"""Failures are told apart by real errors where this machine can make them, else by the words they are known to come with."""

import errno

import pytest
import torch

from benchmark.errors import InputError
from benchmark.store.failure import class_of, first_line
from benchmark.store.record import storage_error


def raised(action):
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


def test_memory_that_was_asked_for_and_not_given():
    assert class_of(raised(lambda: torch.empty(2**60, dtype=torch.uint8))) == "oom"
    assert class_of(raised(lambda: bytearray(2**60))) == "oom"
    assert class_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")) == "oom"
    assert class_of(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")) == "oom"
    assert class_of(OSError(errno.ENOMEM, "Cannot allocate memory")) == "oom"


def test_the_machine_is_gone(tmp_path):
    for number in (errno.EIO, errno.ESTALE):
        assert class_of(OSError(number, "gone")) == "node"
        error = OSError(number, "gone")
        told = raised(lambda error=error: _tell(tmp_path, error))
        assert isinstance(told, InputError)
        assert class_of(told) == "node"
    assert class_of(RuntimeError("CUDA error: uncorrectable ECC error encountered")) == "node"
    assert class_of(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")) == "node"
    assert class_of(RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")) == "node"


def _tell(path, error):
    try:
        raise error
    except OSError as caught:
        raise storage_error(path, caught) from caught


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        ConnectionResetError("Connection reset by peer"),
        KeyError("x"),
        AssertionError(),
    ],
)
def test_what_is_wrong_with_the_code_stays_so(error):
    assert class_of(error) == "code"
    assert first_line(error)


def test_an_error_that_says_its_class_is_believed():
    error = ValueError("rank 1 ended")
    error.failure = "oom"
    assert class_of(error) == "oom"
    error.failure = "weather"
    assert class_of(error) == "code"
