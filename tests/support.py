"""What the test scripts share: a report in the TAP format that meson reads, one case per check."""
import sys
import time
import traceback


class Report:
    """Runs cases and prints "ok" or "not ok" with the reason. A case is a function; it passes unless it raises."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def case(self, name):
        def run(check):
            started = time.monotonic()
            try:
                check()
            except Exception as error:  # Whatever went wrong: the case failed, the others still run.
                self.failed += 1
                print(f"not ok {self.passed + self.failed} - {name}")
                lines = traceback.format_exception_only(type(error), error)
                where = traceback.extract_tb(error.__traceback__)[-1]
                lines.append(f"{where.filename}:{where.lineno}: {where.line}")
                for line in "\n".join(lines).splitlines():
                    print("#", line)
            else:
                self.passed += 1
                print(f"ok {self.passed + self.failed} - {name}")
            print(f"# {time.monotonic() - started:.2f} s", flush=True)
            return check

        return run

    def note(self, text):
        print("#", text, flush=True)

    def end(self):
        print(f"1..{self.passed + self.failed}", flush=True)
        return 1 if self.failed else 0
