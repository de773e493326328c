"The whole catalogue with the messages."
import sys

from bad_inputs import AREAS, cases_of
from bad_inputs.catalogue import refusal

cases = [case for area in AREAS for case in cases_of(area)]
wrong = 0
for case in cases:
    try: verdict = refusal(case)
    except Exception as error: verdict, wrong = f"NOT AS EXPECTED: {error}", wrong + 1
    print(f"{case.id}\n    {case.error.__name__}: {verdict}", flush=True)
print(f"{len(cases) - wrong} of {len(cases)} bad inputs refused as expected")
sys.exit(bool(wrong))
