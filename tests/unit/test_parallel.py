import multiprocessing
import os
import resource
import signal

import pytest
import torch

from refusals import refused
from wildpdiff import parallel
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.parallel import in_parallel, workers


def cores(count):
    torch.set_num_threads(count)
    try:
        if workers(2) != count:
            pytest.skip("this system cannot fork")
        yield count
    finally:
        torch.set_num_threads(1)


@pytest.fixture(params=[1, 2], ids=["serial", "forked"])
def processes(request):
    yield from cores(request.param)


@pytest.fixture
def two_processes():
    yield from cores(2)


def trained(seed, tick):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 64, generator=generator, requires_grad=True)
    for _ in range(3):
        loss = (torch.randn(256, 64, generator=generator) @ weight).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.1 * gradient).detach().requires_grad_()
    tick(0.5)
    return weight.detach()


def test_results_come_in_order_and_are_the_same_bytes_in_processes(processes):
    torch.randn(64, 64, requires_grad=True).square().sum().backward()  # forking after autograd was used
    found = list(in_parallel(trained, range(7)))
    assert all(torch.equal(own, trained(seed, lambda share: None)) for seed, own in enumerate(found))


def test_no_file_is_needed_where_none_can_be_written(processes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        found = list(in_parallel(lambda number, tick: number, range(2000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found == list(range(2000))


def test_a_job_runs_on_one_thread_and_in_another_process_where_there_are_several(processes):
    found = list(in_parallel(lambda _, tick: (torch.get_num_threads(), os.getpid()), range(4)))
    assert {threads for threads, _ in found} == {1}
    assert (os.getpid() in {pid for _, pid in found}) == (processes == 1)
    assert torch.get_num_threads() == processes


def test_jobs_within_jobs_fork_no_further(two_processes):
    def nested(_, tick):
        return os.getpid(), list(in_parallel(lambda _, tick: os.getpid(), range(3)))

    assert all(inner == [own] * 3 for own, inner in in_parallel(nested, range(2)))


def test_progress_goes_from_nothing_to_all_and_never_back(processes):
    seen = []
    list(in_parallel(trained, range(5), seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_an_error_of_a_job_is_raised_as_it_is_and_stops_the_others(processes):
    def fail(number, tick):
        if number == 1:
            raise DataError("Task 'b' has no images. Add some.")
        return number

    found = in_parallel(fail, range(50))
    assert next(found) == 0
    with refused(DataError, "has no images"):
        next(found)


def test_a_killed_process_is_named_and_not_waited_for(two_processes):
    def die(number, tick):
        os.kill(os.getpid(), signal.SIGKILL)

    with refused(TrainingError, "--threads 1"):
        list(in_parallel(die, range(4)))


def test_results_that_are_not_taken_leave_no_process_behind(two_processes):
    found = in_parallel(lambda _, tick: os.getpid(), range(100))
    pid = next(found)
    found.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pool_of_somebody_else_may_hold_a_caller(two_processes):
    """Its processes are daemons, which may have no children."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(serial) == [0, 1, 2]


def serial():
    return list(in_parallel(lambda number, tick: number, range(3)))


def test_without_semaphores_jobs_run_one_after_the_other(two_processes, monkeypatch):
    def refuse(*words, **named):
        raise OSError("[Errno 38] Function not implemented")

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", refuse)
    assert set(in_parallel(lambda _, tick: os.getpid(), range(3))) == {os.getpid()}


def test_nothing_to_do_is_nothing_done(processes):
    assert list(in_parallel(trained, [])) == []
