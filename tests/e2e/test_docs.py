"""What the documentation says of the program, against the program."""
import subprocess

from conftest import ROOT, VLMD


def test_table_of_families():
    """docs/families.md holds the registry's table: `vlmd families` prints what to put there."""
    table = subprocess.run([VLMD, "families"], capture_output=True, text=True, check=True).stdout
    assert table.count("\n") > 20 and "(null)" not in table
    assert "\n" + table + "\n" in (ROOT / "docs" / "families.md").read_text()
