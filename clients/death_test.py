"""A file of its own: there is no server after it."""

import openai
from failures_test import ENDLESS, USUAL
from rig import GATEWAY, Case, client, no_faults, put, refusal


class Death(Case):
    @no_faults
    def test_the_server_dies_in_the_middle(self):
        c = client(GATEWAY)
        with c.chat.completions.create(**ENDLESS) as stream:
            next(stream)
            with self.assertRaises(OSError, msg="the simulator did not crash"):
                put([{"kind": "crash"}])
            with self.assertRaisesRegex(openai.APIError, "ended early") as cut:
                for _ in stream:
                    pass
        self.assertEqual(cut.exception.code, "502")
        err = refusal(c.chat.completions.create, **USUAL)
        self.assertEqual((err["status_code"], err["code"]), (502, "502"))
