# SPDX-License-Identifier: BSD-2-Clause
"""Questions of the owner that make no sense: each has an answer of one line, and the log no traceback."""

import logging
from types import SimpleNamespace

import pytest
from fake_device import FakeDevice

from target.admin import Admin, resize


@pytest.mark.parametrize("nbytes", [0, -512, 513, "512", 0.5, True, [512], 1 << 63, 1 << 64, 10**40 * 512])
def test_sizes_that_no_image_has(nbytes, caplog):
    device = FakeDevice("0=mem:64k")
    admin = Admin(SimpleNamespace(units=device.units))
    with caplog.at_level(logging.ERROR):
        admin._run(1, resize, {"lun": 0, "nbytes": nbytes})
    answer = admin.result(0, {"ticket": 1})
    assert "size" in answer["error"] or "large" in answer["error"]
    assert not caplog.records
    assert device.units[0].blocks == 128
    device.close()
