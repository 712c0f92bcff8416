from my_scan_mended import scan

from ssm_edu.testing import conformance_tests

LACKS = {"last_state", "initial_state", "seq_idx", "complex"}
LACKS |= {"constant_B", "constant_C", "zoh", "bilinear"}
test_scan = conformance_tests(scan, without=LACKS)
