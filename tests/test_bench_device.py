"""The part of `ssm-edu bench` that runs on a GPU, on a stand-in for one: NumPy's arrays and a made-up clock."""

import io
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from ssm_edu import bounds
from ssm_edu.bench import Case, contestants, tables
from ssm_edu.bench.contestants import gradient_outputs, scan_outputs
from ssm_edu.bench.device import console, gpu, judging, oracle, run
from ssm_edu.bench.device import contestants as on_gpu
from ssm_edu.bench.device.judging import ChannelJudge, Probe, spread
from ssm_edu.bench.floors import Rates
from ssm_edu.bench.results import OURS, SAVING, Report, Result
from ssm_edu.commands import bench as command
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing.simulator import simulated

CASES = (
    Case(2, 6, 19, 3),
    Case(2, 6, 19, 3, group=2),
    Case(2, 6, 19, 3, stored="bfloat16"),
    Case(2, 6, 19, 3, "float16"),
    Case(2, 6, 19, 3, "float64"),
)
FORWARD, BACKWARD = contestants.backend("reference")


class StandIn(gpu.Gpu):
    """A GPU whose arrays are NumPy's, and whose clock is made up."""

    torch = SimpleNamespace()
    cache_bytes = 4_000

    def __init__(self):
        self.released = 0
        self.copies = []

    def upload(self, array, stored=None):
        return array.copy()

    upload_to_numba = upload

    def download(self, array):
        return np.asarray(array)

    def time(self, calls):
        self.copies.append(len(calls))
        for call in calls:
            call()
        return gpu.Timing((3e-3, 1e-3, 2e-3), 5e-6, host_ahead=True)

    def rates(self):
        return Rates(3e12, 4e12)

    def describe(self):
        words = dict.fromkeys(("compute_capability", "cuda", "cpu", "python"), "0")
        return {"gpu": "stand-in", "multiprocessors": 1, "packages": {"ssm-edu": "0"}, **words}

    def release(self):
        self.released += 1


@pytest.fixture
def few_channels(monkeypatch):
    """Two of six are looked at, where the groups allow so few."""
    monkeypatch.setattr(judging, "CHECKED", 2 * 2 * 19 * 3)


def judged(case):
    """The contestants of that case, with what bounds the GPU's arithmetic."""
    return [replace(one, bracketing=on_gpu.bracketing(case)) for one in (FORWARD, BACKWARD)]


def spoiled(contestant, spoil):
    def outputs(result):
        found = {name: array.copy() for name, array in contestant.outputs(result).items()}
        spoil(found)
        return found

    return replace(contestant, outputs=outputs)


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 2**20),
)
def test_the_channels_that_are_looked_at(batch, width, group, length):
    channels = spread(Case(batch, width * group, length, 16, group=group))
    of_group = [[c for c in channels if c // width == g] for g in range(group)]
    assert len({len(own) for own in of_group}) == 1
    assert all(own == sorted(set(own)) and own[-1] == (g + 1) * width - 1 for g, own in enumerate(of_group))
    assert all(own[0] == g * width for g, own in enumerate(of_group) if len(own) > 1)
    assert len(channels) <= max(group, judging.MOST_CHANNELS)
    assert len(channels) == group or len(channels) * batch * length * 16 <= judging.CHECKED


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("few", [True, False])
def test_the_oracle_is_within_the_bounds_of_some_channels(case, few, monkeypatch):
    """The other channels add nothing, so that part of a problem has the outputs of the whole."""
    if few:
        monkeypatch.setattr(judging, "CHECKED", 2 * 2 * 19 * 3)
    judge = ChannelJudge(case)
    assert len(judge.case.channels) == (2 if few else 6)
    assert judge.checked("backward") == ("2 of 6 channels, grad_y zero in the others" if few else "all channels")
    for contestant in judged(case):
        found = contestant.outputs(contestant.prepare(judge.case)())
        verdict = judge.verdict(contestant, found)
        assert verdict.ok, verdict
        assert verdict.steps == case.length
        assert verdict.ratio > 0 or case.dtype == "float64"


def add(name, at, value):
    def spoil(found):
        found[name][at] += value

    return spoil


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize(
    ("direction", "spoil", "message"),
    [
        ("forward", add("y", (0, 5, 18), 1e-2), r"y\[0, 1, 18\] is .*, expected .* ± "),
        ("forward", add("last_state", (1, 0, 2), 1e-2), r"last_state\[1, 0, 2\] is "),
        ("forward", add("y", (1, 3, 0), np.nan), "y is not finite everywhere"),
        ("forward", lambda found: found.update(y=found["y"][:, :5]), r"y is f\(2, 5, 19\), expected f\(2, 2, 19\)"),
        ("backward", add("gradient of u", (0, 0, 0), 1e-2), r"gradient of u\[0, 0, 0\] is "),
        ("backward", add("gradient of A", (5, 1), 1e-1), r"gradient of A\[1, 1\] is "),
        ("backward", add("gradient of B", (0, 0, 1, 7), 1e-2), r"gradient of B\[0, 0, 1, 7\] is "),
        ("backward", add("gradient of C", (0, 0, 1, 7), 1e-2), r"gradient of C\[0, 0, 1, 7\] is "),
        ("backward", add("gradient of z", (0, 2, 3), 1e-30), "gradient of z is not zero in a channel where"),
        ("backward", add("gradient of D", 2, 1e-30), "gradient of D is not zero in a channel where"),
        ("backward", lambda found: found.pop("gradient of delta"), "gradient of delta is missing"),
    ],
)
def test_a_wrong_scan_is_outside(direction, spoil, message):
    judge = ChannelJudge(CASES[0])
    contestant = spoiled(judged(CASES[0])[direction == "backward"], spoil)
    verdict = judge.verdict(contestant, contestant.outputs(contestant.prepare(judge.case)()))
    assert not verdict.ok
    assert re.search(message, verdict.message), verdict.message


@pytest.mark.usefixtures("few_channels")
def test_a_channel_lost_in_a_sum_is_seen():
    """dB without what the last channel adds."""

    def lose(case):
        lossy = Probe(**{**vars_of(case), "channels": case.channels[:-1]})
        return lambda: BACKWARD.prepare(lossy)()

    judge = ChannelJudge(CASES[0])
    contestant = replace(judged(CASES[0])[1], prepare=lose)
    assert not judge.verdict(contestant, contestant.outputs(contestant.prepare(judge.case)())).ok


def vars_of(case):
    return {name: getattr(case, name) for name in Case.__dataclass_fields__}


def test_numbers_of_bfloat16_have_eight_bits():
    case = Case(1, 2, 9, 3, stored="bfloat16")
    for array in (*(case.arguments[name] for name in ("u", "delta", "z", "B", "C")), case.grad_y):
        assert array.dtype == np.float32
        assert not (array.view(np.uint32) & 0xFFFF).any()
    exact = Case(1, 2, 9, 3).arguments["u"]
    relative = np.abs(case.arguments["u"] / exact - 1)
    assert 0 < relative.max() <= 2**-8  # half an ulp of 2⁻⁷
    assert (case.arguments["A"] == Case(1, 2, 9, 3).arguments["A"]).all()


def test_a_case_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="group is 4, expected a divisor of dim = 6"):
        Case(1, 6, 1, 1, group=4)
    with pytest.raises(ValueError, match="stored is 'bfloat16', expected None, or 'bfloat16' beside a real float32"):
        Case(1, 6, 1, 1, "float64", stored="bfloat16")


def extension(wrong=""):
    """A module with the interface of mamba_ssm's extension, on the oracle."""

    def problem_of(u, delta, A, B, C, D, z, bias, softplus):
        return make_problem(u, delta, A, B, C, D, z, bias, softplus)

    def fwd(*arguments):
        y, last_state = reference.selective_scan(problem_of(*arguments))
        return [np.full_like(y, np.nan), last_state, y]

    def bwd(u, delta, A, B, C, D, z, bias, grad_y, borders, out, dz, softplus, recompute):
        assert borders.shape == (*u.shape[:2], A.shape[1])
        assert np.isnan(out).all()
        assert dz is None
        assert recompute is False
        g = reference.selective_scan_backward(problem_of(u, delta, A, B, C, D, z, bias, softplus), grad_y)
        dB, dC = (g.C, g.B) if wrong == "swapped" else (g.B, g.C)
        return [g.u, g.delta, g.A, dB, dC, g.D, g.delta_bias, g.z]

    module = ModuleType(on_gpu.EXTENSION)
    module.__spec__ = ModuleSpec(on_gpu.EXTENSION, None)
    module.fwd, module.bwd = fwd, bwd
    return module


@pytest.fixture
def stand_in(monkeypatch):
    """Ours and theirs are the oracle."""
    monkeypatch.setattr(on_gpu, "ours", partial(on_gpu.ours, backend="reference"))
    monkeypatch.setitem(sys.modules, on_gpu.EXTENSION, extension())
    return StandIn()


def whole(*arguments, **options):
    """The last of the reports, each of which holds the one before."""
    found = list(run.reports(*arguments, **options))
    for before, after in pairwise(found):
        assert (before.date, before.rates) == (after.date, after.rates)
        assert after.results[: len(before.results)] == before.results
        assert after.ladder[: len(before.ladder)] == before.ladder
    return found[-1]


@pytest.mark.usefixtures("few_channels")
def test_a_report_is_judged_and_timed(stand_in):
    told = []
    found = whole(CASES, ("forward", "backward"), stand_in, told.append)
    assert Report.from_json(found.to_json()) == found
    assert found.cases == list(CASES)
    assert len(found.results) == 4 * len(CASES) == len(told) - 1
    for result in found.results:
        if result.name == "mamba_ssm" and result.case.dtype == "float64":
            assert "no float64" in result.skipped
            continue
        assert result.ok, result
        assert result.checked.startswith("2 of 6 channels, ")
        assert (result.median, result.best, result.runs, result.launch) == (2e-3, 1e-3, 3, 5e-6)
    small = found.results[0].work.bytes
    assert stand_in.copies[0] == 1 + -(-2 * stand_in.cache_bytes // small)
    assert stand_in.released == len(found.results) - 2


@pytest.mark.usefixtures("few_channels")
def test_ours_from_saved_states_has_rows_of_its_own(stand_in, monkeypatch):
    """And is what the tables show of backward."""
    saved = object()

    def scan_saving_states(arrays, softplus, rule):
        y, last = reference.selective_scan(make_problem(**arrays, delta_softplus=softplus, discretization=rule))
        return y, last, saved

    def differentiate(arrays, softplus, rule, given):
        assert given is saved
        grad_y = arrays.pop("grad_y").copy()
        problem = make_problem(**arrays, delta_softplus=softplus, discretization=rule)
        arrays["grad_y"] = grad_y
        return reference.selective_scan_backward(problem, grad_y)

    assert not on_gpu.saves(CASES[0])
    monkeypatch.setattr(on_gpu, "saves", lambda case: case == CASES[0])
    door = SimpleNamespace(scan_saving_states=scan_saving_states, differentiate_device_arrays=differentiate)
    monkeypatch.setattr(on_gpu, "door", door)
    found = whole(CASES[:2], ("forward", "backward"), stand_in, lambda what: None)
    mine = [(r.direction, r.case, r.ok) for r in found.results if r.name == SAVING]
    assert mine == [(way, CASES[0], True) for way in ("forward", "backward")]
    assert found.ours("backward", CASES[0]).name == SAVING
    assert found.ours("forward", CASES[0]).name == found.ours("backward", CASES[1]).name == OURS
    assert found.ours("forward", CASES[2]) is None
    table = tables.summary(found)
    assert table.count("2.00 ³") == 1
    times = {("forward", OURS): 2.0, ("forward", SAVING): 2.5, ("backward", OURS): 8.0, ("backward", SAVING): 6.0}
    timed = [replace(r, median=times.get((r.direction, r.name), 9.0)) for r in found.results]
    table = tables.summary(replace(found, results=tuple(timed)))
    assert "forward takes 1.25 to 1.25 times as long and backward takes 0.75 to 0.75 times as long." in table
    alone = replace(found, results=tuple(r for r in timed if r.direction == "backward"))
    assert "With saved states backward takes 0.75 to 0.75 times as long." in tables.summary(alone)
    out = io.StringIO()
    console.show(found, Console(file=out, width=200))
    assert "backward, float32, states saved" in out.getvalue()


@pytest.mark.usefixtures("few_channels")
def test_a_wrong_or_failing_contestant_is_told(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, on_gpu.EXTENSION, extension("swapped"))
    found = whole(CASES[:1], ("backward",), stand_in, lambda what: None)
    assert [(r.name, r.ok, r.shown) for r in found.results] == [("ssm_edu", True, True), ("mamba_ssm", False, True)]
    monkeypatch.setattr(stand_in, "time", lambda calls: 1 / 0)
    found = whole(CASES[:1], ("forward",), stand_in, lambda what: None)
    assert [r.message for r in found.results] == ["raised ZeroDivisionError: division by zero"] * 2
    assert not found.results[0].shown


@pytest.mark.usefixtures("few_channels")
def test_the_oracle_is_asked_in_other_processes(monkeypatch):
    """What comes back from there judges as a judge made here does, and works out nothing again."""
    case, directions = CASES[2], ("forward", "backward")
    monkeypatch.setattr(oracle, "LARGEST_CHECK", 0)
    with oracle.judges([case, case], directions, processes=1) as judge_of:
        judge = judge_of(case)
    assert judge is not judge_of(CASES[0])
    judge.case.share_arguments(case)
    assert judge.case.arguments is case.arguments

    def again(*args, **kwargs):
        raise AssertionError

    here = ChannelJudge(case)
    here.case = replace(here.case, channels=judge.case.channels)  # the other process looks at more
    expected = [here.verdict(one, one.outputs(one.prepare(here.case)())) for one in judged(case)]
    found = [one.outputs(one.prepare(judge.case)()) for one in judged(case)]
    for name in ("forward", "backward"):
        monkeypatch.setattr(bounds, name, again)
    assert [judge.verdict(one, outputs) for one, outputs in zip(judged(case), found, strict=True)] == expected
    assert all(verdict.ok for verdict in expected)


def test_bfloat16_needs_torch(stand_in):
    stand_in.torch = None
    found = whole([CASES[2]], ("forward",), stand_in, lambda what: None)
    assert found.results[0].skipped.startswith("bfloat16 arrays need torch")
    assert "torch does not see the GPU" in found.results[1].skipped


def rung(number, launch):
    return SimpleNamespace(number=number, title="a rung", launch=launch)


def by_the_oracle(u, delta, A, B, C, D, z, delta_bias, y, *, stream=0):
    y[...] = reference.selective_scan(make_problem(u, delta, A, B, C, D, z, delta_bias, True))[0]


def without_the_last_step(*, y, **given):
    whole = np.empty_like(y)
    by_the_oracle(**given, y=whole)
    y[..., :-1] = whole[..., :-1]


def adjoint_by_the_oracle(grad_y, u, delta, A, B, C, D, z, delta_bias, grads, *, stream=0):
    found = reference.selective_scan_backward(make_problem(u, delta, A, B, C, D, z, delta_bias, True), grad_y)
    for name, array in grads._asdict().items():
        array[...] = getattr(found, name).reshape(array.shape)


def test_every_rung_is_judged(stand_in, monkeypatch):
    """What a rung leaves unwritten is NaN."""
    ladder = pytest.importorskip("ssm_kernels.ladder")
    pytest.importorskip("ssm_kernels.backward.rungs")
    forward = [rung("0", by_the_oracle), rung("1", without_the_last_step)]
    monkeypatch.setattr(ladder, "FORWARD", forward, raising=False)
    monkeypatch.setattr(ladder, "BACKWARD", [rung("0", adjoint_by_the_oracle)], raising=False)
    monkeypatch.setattr(run, "LADDER", CASES[0])
    found = whole([], ("forward", "backward"), stand_in, lambda what: None, with_ladder=True)
    assert [(r.name, r.direction, r.ok) for r in found.ladder] == [
        ("0 a rung", "forward", True),
        ("1 a rung", "forward", False),
        ("0 a rung", "backward", True),
    ]
    assert found.ladder[1].message == "y is not finite everywhere"


class Event:
    def __init__(self, clock):
        self.clock = clock

    def record(self):
        self.at = self.clock.now

    def query(self):
        return self.clock.reached >= self.at

    def synchronize(self):
        self.clock.reached = self.clock.now

    def elapsed_time(self, end):
        return 1e3 * (end.at - self.at)


class Clock:
    """A GPU's, in seconds: `now` is the end of what was asked of it, `reached` how far it is when the host looks."""

    def __init__(self, host):
        self.now = self.reached = 0.0
        self.host = host
        self.timer = gpu.Gpu.__new__(gpu.Gpu)
        event = partial(Event, self)
        self.freed = 0
        pending = SimpleNamespace(clear=self.free)
        context = SimpleNamespace(memory_manager=SimpleNamespace(deallocations=pending))
        self.timer.cuda = SimpleNamespace(
            event=event,
            synchronize=self.synchronize,
            defer_cleanup=nullcontext,
            current_context=lambda: context,
        )
        self.timer._round = 1e-6
        self.timer._spin = self.spin

    def synchronize(self):
        self.reached = self.now

    def spin(self, rounds):
        self.now += rounds * self.timer._round

    def free(self):
        self.freed += 1

    def call(self):
        """2 ms of work, or what the host takes to ask for it where the GPU has nothing else to do."""
        self.reached += self.host
        self.now = max(self.now, self.reached) + 2e-3


def test_the_host_is_kept_ahead_of_the_gpu():
    clock = Clock(host=5e-3)
    timing = clock.timer.time([clock.call, clock.call])
    assert timing.host_ahead
    assert timing.times == pytest.approx([2e-3] * gpu.RUNS)
    assert clock.freed >= 2 * gpu.RUNS  # after each call: what one leaves behind may fill the memory


def test_where_the_gpu_waits_for_the_host_it_is_said():
    clock = Clock(host=2 * gpu.LONGEST_HOLD)
    timing = clock.timer.time([clock.call])
    assert not timing.host_ahead
    assert len(timing.times) == gpu.RUNS
    assert min(timing.times) > 2e-3


def test_the_copy_copies_and_the_exponentials_are_taken():
    pytest.importorskip("greenlet")
    from ssm_kernels._target import SIMULATED

    from ssm_edu.bench.device import yardsticks as y

    if not SIMULATED:
        pytest.skip("the benchmark's own check of its rates is for a GPU")
    source = np.arange(2 * y.COPIED, dtype=np.float32)
    target = np.zeros_like(source)
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    chains = np.stack([x, x**2, x + x**2, x**3, x - x**2, x**2 + x**3, x**2 - x**3, x**3 * (x + x**2)])
    for _ in range(5):
        chains = np.exp2(-chains)
    with simulated():
        y.launch(y.copy, 2, y.THREADS, source, target)
        y.launch(y.exponentials, 2, 32, 5, x)
    assert (target == source).all()
    assert len(chains) == y.CHAINS
    np.testing.assert_allclose(x, chains.sum(axis=0), rtol=1e-5)


def call(*arguments):
    app = typer.Typer()
    app.command()(command.bench_command)
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "tpu"), "device is 'tpu', expected one of auto, cpu, cuda"),
        (("--direction", "sideways"), "direction is 'sideways', expected one of forward, backward, both"),
        (("--device", "cpu", "--ladder"), "--ladder: for cuda alone; --device is cpu"),
        (("--device", "cuda", "--dim", "4", "--lengths"), "--dim, --lengths: for cpu alone; --device is cuda"),
        (("--dim", "4", "--shape", "1,1,1,1"), "--dim: for cpu alone; --shape: for cuda alone; --device is auto"),
        (("--shape", "1,2,3"), "--shape is '1,2,3', expected batch,dim,length,state or batch,dim,length,state,group"),
        (("--shape", "1,2,3,x"), "--shape is '1,2,3,x', expected"),
        (("--shape", "1,3,3,1,2"), "group is 2, expected a divisor of dim = 3"),
        (("--shape", "1,3,0,1"), "length is 0, expected at least 1"),
        (("--ladder", "--dtype", "float32,int8"), "dtype is 'int8', expected some of float32, bfloat16"),
        (("--figure", "/no/such/folder/x.svg"), "--figure: no folder /no/such/folder"),
    ],
)
def test_usage_errors_exit_with_2(arguments, message, monkeypatch):
    monkeypatch.setattr(gpu, "why_not", lambda: None)
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", " ")


def test_without_a_gpu_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(gpu, "why_not", lambda: "no driver")
    result = call("--device", "cuda")
    assert result.exit_code == 2
    assert "the CUDA kernels cannot be timed here: no driver" in result.output.replace("\n", " ")
    assert command.choose("auto", [], []) == ("cpu", "no driver")
    assert command.choose("auto", ["--dim"], []) == ("cpu", None)
    monkeypatch.setattr(gpu, "why_not", lambda: None)
    assert command.choose("auto", [], []) == ("cuda", None)
    assert command.choose("cpu", [], []) == ("cpu", None)


def test_auto_comes_to_the_cpu_and_says_why(monkeypatch):
    monkeypatch.setattr(gpu, "why_not", lambda: "no driver")
    monkeypatch.setattr("ssm_edu.bench.console.execute", lambda case, directions, **options: [])
    result = call()
    assert result.exit_code == 0, result.output
    assert "no CUDA: no driver" in result.output


def test_a_simulator_is_not_timed(monkeypatch):
    runtime = pytest.importorskip("ssm_edu.gpu.runtime")
    monkeypatch.setattr(runtime, "is_simulated", lambda: True)
    assert "simulator" in gpu.why_not()

    def absent():
        raise RuntimeError("no driver that works")

    monkeypatch.setattr(runtime, "is_simulated", absent)
    assert gpu.why_not() == "no driver that works"


def test_shapes_and_dtypes_make_cases():
    assert len(console.cases([], "float32,bfloat16")) == 2 * len(run.SHAPES)
    assert console.cases(["2,6,19,3,2"], " float32, bfloat16,float32") == [
        CASES[1],
        replace(CASES[1], stored="bfloat16"),
    ]


@pytest.mark.usefixtures("few_channels")
def test_the_command_prints_and_writes(stand_in, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(gpu, "why_not", lambda: None)
    monkeypatch.setattr(gpu, "Gpu", lambda: stand_in)
    monkeypatch.setenv("COLUMNS", "250")
    json_file, svg = tmp_path / "gpu.json", tmp_path / "gpu.svg"
    result = call("--shape", "2,6,19,3", "--dtype", "float32", "--json", str(json_file), "--figure", str(svg))
    assert result.exit_code == 0, result.output
    assert svg.stat().st_size > 0
    kept = Report.load(json_file)
    assert len(kept.results) == 4
    floor = kept.results[0].work.floor(kept.rates)
    for words in ("stand-in: a copy moves 3 TB/s", "forward, float32", "2, 6, 19; state 3", "2 ms", "1.00×", "2 of 6"):
        assert words in result.output
    assert f"{floor * 1e9:.3g} ns" in result.output


def test_ours_outside_its_bound_is_struck_and_exits_with_1(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    wrong = Result("ssm_edu", "forward", True, CASES[0], ok=False, message="y[0, 0, 0] is nan", median=1.0, best=1.0)
    late = replace(wrong, name="mamba_ssm", ours=False, host_ahead=False)
    report = Report("2026-11-21", StandIn().describe(), Rates(1.0, 1.0), (wrong, late))
    out = Console(record=True, width=250, force_terminal=True, highlight=False, file=io.StringIO())
    with pytest.raises(typer.Exit):
        console.show(report, out)
    text = out.export_text(styles=True)
    assert "ssm_edu forward (2, 6, 19; state 3, float32) is outside its bound: y[0, 0, 0] is nan" in text
    assert "\x1b[9m1 s" in text  # struck out
    assert "mamba_ssm, 2, 6, 19; state 3: the time may hold some of the host's" in text
    console.show(replace(report, results=(late,)), out)


def test_outputs_have_names():
    assert set(scan_outputs((np.zeros(1), np.zeros(1)))) == {"y", "last_state"}
    assert gradient_outputs({"u": np.zeros(1)}).keys() == {"gradient of u"}
