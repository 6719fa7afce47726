"""The command line: `pylog append`, and how commands end as processes, by signals and pipes."""

import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from shell import COMMAND, READERS, lines, run, start, values

import pylog
from pylog import cli_options
from pylog.cli import commands
from pylog.exits import Exit

# ---- append -------------------------------------------------------------------------------------


def test_append_makes_a_record_of_each_line(log_path):
    result = run("append", log_path, given=b"one\ntwo\n\nlast without newline")

    assert result.exit_code == Exit.FINE
    assert result.stdout == ""
    assert "appended 4 records from offset 0 on" in result.stderr
    assert values(log_path) == [b"one", b"two", b"", b"last without newline"]


def test_append_keeps_every_byte_but_the_newline(log_path):
    given = bytes(range(256)).replace(b"\n", b"") + b"\r\n\x00\n"

    run("append", log_path, given=given)

    assert values(log_path) == given.split(b"\n")[:-1]


def test_append_of_nothing_makes_an_empty_log(log_path):
    result = run("append", log_path)

    assert result.exit_code == Exit.FINE
    assert "appended nothing" in result.stderr
    assert lines("read", log_path) == []


def test_append_reads_files_and_stdin_in_order(log_path, tmp_path):
    (tmp_path / "a").write_bytes(b"a1\na2")
    (tmp_path / "b").write_bytes(b"b1\n")

    result = run("append", log_path, tmp_path / "a", "-", tmp_path / "b", given=b"in\n")

    assert result.exit_code == Exit.FINE
    assert values(log_path) == [b"a1", b"a2", b"in", b"b1"]


def test_append_joins_lines_that_cross_the_blocks_read(log_path, rng):
    given = [rng.randbytes(rng.randrange(1, 700_000)).replace(b"\n", b"") for _ in range(9)]

    run("append", log_path, given=b"\n".join(given))

    assert values(log_path) == given


def test_append_splits_keys_off(log_path):
    run("append", log_path, "-K", "\\t", given=b"k\tv\tw\n\tempty key\n")

    with pylog.Log(log_path, mode="r") as log:
        assert [(one.key, one.value) for one in log.read()] == [
            (b"k", b"v\tw"), (b"", b"empty key")]


def test_line_without_the_key_separator_is_refused_by_its_number(log_path):
    result = run("append", log_path, "-K", ":", given=b"k:v\nno key\nk:w\n")

    assert result.exit_code == Exit.FAILED
    assert "stdin, line 2: it has no ':'" in result.stderr
    assert "--json" in result.stderr
    assert values(log_path) == [b"v"]
    assert "Going in, a line without TEXT is refused" in " ".join(
        run("append", "--help").stdout.split())


def test_append_gives_key_and_headers_to_every_line(log_path):
    run("append", log_path, "--key", "k", "-H", "a=1", "-H", "b=x=y", "-q", given=b"1\n2\n")

    with pylog.Log(log_path, mode="r") as log:
        for record in log.read():
            assert record.key == b"k"
            assert record.headers == (("a", b"1"), ("b", b"x=y"))


def test_append_compresses_and_flushes_as_told(log_path):
    result = run("append", log_path, "-z", "lz4", "--flush", given=b"the same\n" * 5000)

    assert result.exit_code == Exit.FINE
    with pylog.Log(log_path, mode="r") as log:
        assert log.size_bytes < 16 * 5000 / 3
    assert len(values(log_path)) == 5000


def test_append_is_quiet_when_told(log_path):
    assert run("append", log_path, "-q", given=b"x\n").output == ""


def test_append_stores_the_durability_of_a_new_log(log_path):
    run("append", log_path, "--durability", "interval", given=b"x\n")

    with pylog.Log(log_path, mode="r") as log:
        assert log.durability == "interval"


@pytest.mark.parametrize(("given", "options"), [
    (b"no JSON\n", ["--json"]), (b"no key\n", ["-K", ":"]), (b"x" * 1_048_588, []),
    (b"x" * 5_000_000, ["-z", "lz4"]), (b'{"value": "' + b"x" * 1_048_588 + b'"}', ["--json"]),
], ids=["json", "key", "size", "size far over", "size in json"])
def test_bad_first_line_makes_no_log(log_path, given, options):
    result = run("append", log_path, *options, given=given)

    assert result.exit_code == Exit.FAILED
    assert "stdin, line 1: " in result.stderr
    assert f"appended nothing; no log was made at {log_path}" in result.stderr
    assert not log_path.exists()


@pytest.mark.parametrize("size", range(1_048_514, 1_048_519))
def test_largest_first_line_is_what_a_log_takes(log_path, size):
    # 61 bytes of header, 2 varints of 3 bytes, 4 of a byte and the attributes.
    is_small_enough = 61 + 11 + size <= pylog.streams.MESSAGE_BYTES_MAX

    result = run("append", log_path, given=b"x" * size)

    assert (result.exit_code == Exit.FINE) == log_path.exists() == is_small_enough


def test_bad_first_line_leaves_a_log_as_it_was(log_of_three):
    result = run("append", log_of_three, "--json", given=b"no JSON\n")

    assert result.exit_code == Exit.FAILED
    assert f"appended nothing; {log_of_three} ends at offset 3" in result.stderr


def test_append_makes_no_log_among_other_files(tmp_path):
    (tmp_path / "README").write_bytes(b"precious")

    result = run("append", tmp_path, given=b"x\n")

    assert result.exit_code == Exit.FAILED
    assert "is no log, and not empty (there is 'README')" in result.stderr
    assert os.listdir(tmp_path) == ["README"]


def test_append_makes_a_log_in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run("append", ".", given=b"x\n").exit_code == Exit.FINE

    assert values(tmp_path) == [b"x"]
    (tmp_path / "README").touch()
    assert run("append", ".", given=b"y\n").exit_code == Exit.FINE
    assert values(tmp_path) == [b"x", b"y"]


def test_append_completes_a_creation_that_was_killed(log_path):
    run("append", log_path)
    (log_path / "log.meta").unlink()

    assert run("append", log_path, given=b"x\n").exit_code == Exit.FINE


@pytest.mark.parametrize("arguments", [
    ["append", ""], *([command, ""] for command in READERS),
    ["append"], ["append", "log", "no such file"], ["append", "log", "."],
    ["append", "log", "--durability", "certain"], ["append", "log", "-z", "zip"],
    ["append", "log", "-H", "no value"], ["append", "log", "-H", "not UTF-8 \udcff=v"],
    ["append", "log", "-K", ""],
    ["append", "log", "-K", "a\nb"], ["append", "log", "--json", "-k", "key"],
    ["append", "log", "--json", "-K", ","], ["append", "log", "-k", "key", "-K", ","],
    ["append", "log", "--unknown"], ["unknown"],
], ids=repr)
def test_wrong_usage_of_append_exits_with_2_and_makes_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = run(*arguments)

    assert result.exit_code == Exit.USAGE
    assert "Error: " in result.stderr
    assert os.listdir(tmp_path) == []


def test_append_into_a_file_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"precious")

    result = run("append", tmp_path / "file", given=b"x\n")

    assert result.exit_code == Exit.FAILED
    assert "is a file" in result.stderr
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_append_with_an_option_that_contradicts_the_log_fails(log_of_three):
    result = run("append", log_of_three, "--durability", "fsync", given=b"x\n")

    assert result.exit_code == Exit.FAILED
    assert "created with durability='os', not 'fsync'" in result.stderr
    assert len(values(log_of_three)) == 3


@pytest.mark.parametrize("size", [1_048_588, 1_500_000, 5_000_000])
@pytest.mark.parametrize("options", [[], ["-z", "lz4"]], ids=str)
def test_line_too_large_is_named_after_all_before_it_are_in(log_path, size, options):
    given = b"one\ntwo\n" + b"x" * size + b"\nnever\n"

    result = run("append", log_path, *options, given=given)

    assert result.exit_code == Exit.FAILED
    assert "stdin, line 3: " in result.stderr
    assert "appended 2 records" in result.stderr
    assert values(log_path) == [b"one", b"two"]


def test_endless_line_is_refused_before_it_fills_the_memory(log_path):
    with open("/dev/zero", "rb") as zeros:
        process = start("append", log_path, stdin=zeros)

        _, stderr = process.communicate(timeout=60)

    assert process.returncode == Exit.FAILED
    assert b"line 1: it has over" in stderr


# ---- processes ----------------------------------------------------------------------------------


def test_follow_writes_what_another_process_appends_at_once(log_of_three):
    reader = start("read", log_of_three, "--follow", "--from", "3")
    writer = start("append", log_of_three)
    try:
        for text in (b"first\n", b"second\n", b"third\n"):
            writer.stdin.write(text)
            writer.stdin.flush()
            assert reader.stdout.readline() == text
        writer.communicate(timeout=30)
        assert writer.returncode == Exit.FINE
        assert reader.poll() is None
    finally:
        reader.send_signal(signal.SIGINT)
        _, stderr = reader.communicate(timeout=30)
    assert reader.returncode == Exit.INTERRUPTED
    assert stderr == b""


def test_follow_finds_the_page_that_a_writer_makes_anew(log_of_three):
    os.remove(log_of_three / "control")    # as after a reboot: we read without one
    reader = start("read", log_of_three, "--follow", "--to", "4")
    assert reader.stdout.readline() == b"one\n"

    run("append", log_of_three, given=b"new\n")

    out, _ = reader.communicate(timeout=30)
    assert out.splitlines()[-1] == b"new"
    assert reader.returncode == Exit.FINE


def test_append_interrupted_keeps_the_whole_lines_and_says_so(log_path):
    with pylog.Log(log_path) as log:
        process = start("append", log_path)
        process.stdin.write(b"one\ntwo\nhalf a li")
        process.stdin.flush()
        assert log.wait(1, timeout=30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == Exit.INTERRUPTED
    assert re.search(rb"appended (2 records|nothing, and up to 2 more)", stderr)
    assert b"Traceback" not in stderr
    assert values(log_path) == [b"one", b"two"]


def test_reader_that_goes_away_ends_read_without_a_word(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"x" * 100] * 20_000)
    script = f"{' '.join(COMMAND)} read {log_path} | head -2; echo ${{PIPESTATUS[0]}}"

    result = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=60)

    assert result.stdout.split() == [b"x" * 100, b"x" * 100, b"141"]
    assert result.stderr == b""


@pytest.mark.parametrize("is_buffered", ["", "1"])
@pytest.mark.parametrize("command", ["read", "stat"])
def test_full_disk_of_stdout_is_an_error(log_of_three, command, is_buffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", is_buffered)

    with open("/dev/full", "wb") as full:
        process = start(command, log_of_three, stdout=full)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == Exit.FAILED
    assert b"No space left on device" in stderr
    assert b"Traceback" not in stderr
    assert b"Exception ignored" not in stderr


@pytest.mark.parametrize("arguments", [
    "--help", "read {} --json", "stat {}", "check {}", "dump {}"])
def test_closed_or_full_stdout_is_an_error(log_of_three, arguments):
    command = f"{' '.join(COMMAND)} {arguments.format(log_of_three)}"

    for end in ">&-", "> /dev/full":
        result = subprocess.run(["bash", "-c", f"{command} {end}"], capture_output=True,
                                check=False, timeout=60, text=True)

        assert result.returncode == Exit.FAILED
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1


def test_append_needs_no_stdout_and_fails_without_stdin(log_path):
    command = f"{' '.join(COMMAND)} append {log_path}"

    result = subprocess.run(["bash", "-c", f"echo x | {command} >&- 2>&- && {command} <&-"],
                            capture_output=True, check=False, timeout=60, text=True)

    assert result.returncode == Exit.FAILED
    assert "Error: input or output: Bad file descriptor" in result.stderr
    assert values(log_path) == [b"x"]
    assert pylog.check(log_path).findings == []     # nothing was written into a file of the log


def test_path_that_is_not_utf8_is_printed_as_it_is(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff"
    with pylog.Log(os.fsdecode(path)) as log:
        log.append(b"x")

    for command in "stat", "check":
        result = subprocess.run([*COMMAND, command, path], capture_output=True, check=True,
                                timeout=60)
        assert path in result.stdout


def test_missing_click_is_told_with_the_command_that_installs_it(tmp_path):
    without = "import sys; sys.modules['click'] = None; from pylog.__main__ import main; main()"

    result = subprocess.run([sys.executable, "-c", without, "stat"], capture_output=True,
                            check=False, timeout=60, text=True, cwd=tmp_path)

    assert result.returncode == Exit.FAILED
    assert result.stderr == (
        "the command line needs click: pip install click, or pip install 'pylog-engine[cli]' for "
        "both\n")


def test_help_shows_examples_and_exit_codes():
    text = run("--help").stdout

    assert "pylog append data/numbers" in text
    assert "4 damage" in text
    told = set(re.findall(r"\b\d+\b", text.partition("Exit codes:")[2]))
    assert told == {str(int(code)) for code in Exit}
    for command in ("append", *READERS):
        assert run(command, "--help").exit_code == Exit.FINE
        assert f"  {command}  " in text
        assert "..." not in text.split(f"  {command}  ")[1].splitlines()[0]


def every_command(command=commands, words=()):
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*words, name))


def command_of(words):
    command = commands
    for word in words:
        command = command.get_command(click.Context(command), word)
    return command


@pytest.mark.parametrize("words", [*every_command()], ids=" ".join)
def test_help_fits_a_terminal_and_nothing_of_it_is_cut(words):
    text = CliRunner().invoke(commands, [*words, "--help"], terminal_width=80).stdout
    commands_told = text.partition("Commands:\n")[2].partition("\n\n")[0]
    said = text.split()

    assert all(len(line) <= 80 for line in text.splitlines())
    assert "..." not in commands_told
    assert "xample" in text
    for option in command_of(words).params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{option.name} is not explained"
            assert set(option.help.split()) <= set(said), "a word is cut in two"


def test_version_is_told():
    assert run("--version").stdout == f"pylog {pylog.__version__}\n"


@pytest.fixture
def terminal(monkeypatch):
    """stderr is one, and the clock stands still until it is set."""
    clock = [0.0]
    monkeypatch.setattr(cli_options, "sys", SimpleNamespace(
        stderr=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr(cli_options, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def test_progress_is_for_people():
    with cli_options.progress() as show:
        assert show is None


def test_progress_is_for_those_who_wait(terminal, capsys):
    with cli_options.progress() as show:
        show(100, 200)
        terminal[0] = 0.9
        show(200, 200)

    assert capsys.readouterr().err == ""


def test_progress_is_written_over_ten_times_a_second_and_at_the_end(terminal, capsys):
    with cli_options.progress() as show:
        for moment, done in ((2.0, 100_000_000), (2.05, 110_000_000), (2.2, 150_000_000),
                             (2.21, 200_000_000)):
            terminal[0] = moment
            show(done, 200_000_000)

    assert capsys.readouterr().err == (
        "\r   50% of 200,000,000 bytes, 50 MB/s" "\r   75% of 200,000,000 bytes, 68 MB/s"
        "\r  100% of 200,000,000 bytes, 90 MB/s\n")


def test_progress_says_what_goes_on_when_all_is_done(terminal, capsys):
    with cli_options.progress(then="waiting for the disk") as show:
        for terminal[0], done in ((0.1, 150), (0.2, 200)):
            show(done, 200)

    assert capsys.readouterr().err == "\r  100% of 200 bytes, 0 MB/s; waiting for the disk\n"


def test_progress_leaves_nothing_of_a_longer_line(terminal, capsys):
    with cli_options.progress("records") as show:
        for terminal[0], done in ((2.0, 20_000), (20.0, 20_002)):
            show(done)

    assert capsys.readouterr().err == (
        "\r  20,000 records, 10,000 records/s" "\r  20,002 records, 1,000 records/s \n")


@pytest.mark.parametrize(("columns", "widths"), [(80, [34, 5, 28]), (50, [20, 5, 21]),
                                                (10, [10, 5, 8])])
def test_table_is_cut_to_the_terminal(monkeypatch, columns, widths):
    monkeypatch.setattr(cli_options, "sys", SimpleNamespace(
        stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setenv("COLUMNS", str(columns))

    head, row = cli_options.aligned(("TEN COLUMN", "COUNT", "NAME"), [
        ("x" * 34, 7, "y" * 28)]).splitlines()

    assert list(map(len, row.split())) == [widths[0], 1, widths[2]]
    assert head.index("NAME") == row.index("y") == sum(widths[:2]) + 4
    assert len(row) <= max(columns, 27)


def test_what_has_to_be_copied_is_not_cut(monkeypatch):
    monkeypatch.setattr(cli_options, "sys", SimpleNamespace(
        stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setenv("COLUMNS", "50")

    _, row = cli_options.aligned(("ID", "ERROR"), [("x" * 34, "y" * 34)], whole="ID").splitlines()

    assert row.split() == ["x" * 34, "y" * 13 + "…"]


def test_table_in_a_pipe_is_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")

    assert "x" * 100 in cli_options.aligned(("NAME", "COUNT"), [("x" * 100, 7)])
