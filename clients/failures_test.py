"""What clients see when something is wrong."""

import asyncio
import json
import unittest

import openai
from rig import (
    BACKEND, GATEWAY, MODEL, ORPHAN, Case, cancelled, client, comparable, drain, faults, generated, get, metric, no_faults,
    refusal, running, until,
)

MESSAGES = [{"role": "user", "content": "Hello"}]
USUAL = {"model": MODEL, "messages": MESSAGES, "seed": 7, "max_tokens": 40}
TOO_MANY = 1900  # tokens, for the tests to wait for
ENDLESS = {**USUAL, "max_tokens": TOO_MANY, "stream": True, "extra_body": {"ignore_eos": True}}


class Kind:
    """The cases of every endpoint: PATH, and create, which asks it."""

    def test_a_model_that_is_not_there(self):
        for stream in (False, True):
            err = self.same("nobody", lambda c: refusal(self.create, c, model="nobody", stream=stream))
            self.assertEqual((err["class"], err["status_code"]), ("NotFoundError", 404))
            self.assertEqual((err["code"], err["param"]), ("404", "model"))

    def test_a_bad_request(self):
        err = self.same("bad", lambda c: refusal(self.create, c, temperature=-1))
        self.assertEqual((err["class"], err["status_code"]), ("BadRequestError", 400))
        self.assertIn("temperature", err["message"])

    def test_a_field_of_the_wrong_type(self):
        err = self.same("type", lambda c: refusal(self.create, c, stream="perhaps"))
        self.assertEqual((err["class"], err["status_code"]), ("BadRequestError", 400))
        self.assertIn("valid boolean", err["message"])

    def test_a_body_that_is_not_json(self):
        body = {"content": b"{", "options": {"headers": {"Content-Type": "application/json"}}}
        err = self.same("broken", lambda c: refusal(c.post, self.PATH, cast_to=object, **body))
        self.assertEqual((err["class"], err["status_code"]), ("BadRequestError", 400))
        self.assertIn("JSON decode error", err["message"])

    def test_a_server_that_is_not_there(self):
        for stream in (False, True):
            err = refusal(self.create, client(ORPHAN), stream=stream)
            self.assertEqual((err["api"], err["status_code"], err["code"]), (True, 502, "502"))
            self.assertIn("model server could not be reached", err["message"])

    @no_faults
    def test_an_error_in_the_stream_after_tokens(self):
        with faults(kind="error", after=6):
            read = self.same("error", lambda c: drain(self.create(c, stream=True)))
        self.assertTrue(read["chunks"])
        self.assertEqual((read["error"]["class"], read["error"]["code"]), ("APIError", "500"))

    @no_faults
    def test_an_error_in_the_stream_before_any_token(self):
        with faults(kind="error", after=0):
            err = refusal(self.create, client(GATEWAY), stream=True)
        self.assertEqual((err["class"], err["status_code"]), ("InternalServerError", 500))

    @no_faults
    def test_a_cut_stream(self):
        def read(url):
            return drain(self.create(client(url, default_headers={"X-Request-Id": "cut"}), stream=True))

        with faults(kind="cut", after=6):
            direct, through = read(BACKEND), read(GATEWAY)
        self.assertEqual(direct["error"]["class"], "APIConnectionError")
        self.assertEqual(len(through["chunks"]), 6)
        self.assertEqual(comparable(through["chunks"]), comparable(direct["chunks"]))
        self.assertEqual((through["error"]["class"], through["error"]["code"]), ("APIError", "502"))
        self.assertIn("ended early", through["error"]["message"])

    @no_faults
    def test_a_stream_cut_before_any_token(self):
        with faults(kind="cut", after=0):
            err = refusal(self.create, client(GATEWAY), stream=True)
        self.assertEqual((err["class"], err["status_code"]), ("InternalServerError", 502))

    @no_faults
    def test_the_sdk_tries_again(self):
        attempts = []

        def twice(c):
            c = c.with_options(http_client=openai.DefaultHttpxClient(event_hooks={"request": [attempts.append]}))
            # Every second request is refused: the second here, and not its repetition.
            with faults(kind="reject", status=503, share=0.5):
                return [drain(self.create(c, stream=True)) for _ in range(2)]

        for read in self.same("again", twice, max_retries=2):
            self.assertTrue(read["chunks"])
            self.assertIsNone(read["error"])
        self.assertEqual(len(attempts), 6, "three for each server")


class Chat(Kind, Case):
    PATH = "/chat/completions"

    def create(self, c, **more):
        return c.chat.completions.create(**{**USUAL, **more})


class Completions(Kind, Case):
    PATH = "/completions"

    def create(self, c, **more):
        return c.completions.create(**{"model": MODEL, "prompt": "Once upon a time", "seed": 7, "max_tokens": 40, **more})


class Responses(Kind, Case):
    PATH = "/responses"
    # There vLLM breaks off instead, which is a cut stream.
    test_an_error_in_the_stream_after_tokens = None
    test_an_error_in_the_stream_before_any_token = None

    def create(self, c, **more):
        return c.responses.create(**{"model": MODEL, "input": "Hello", "temperature": 0, **more})


class Others(Case):
    def test_a_prompt_that_is_too_long(self):
        long = [{"role": "user", "content": "word " * 5000}]
        err = self.same("long", lambda c: refusal(c.chat.completions.create, **{**USUAL, "messages": long}))
        self.assertEqual((err["class"], err["status_code"]), ("BadRequestError", 400))
        self.assertIn("context length", err["message"])

    def test_a_path_that_is_not_served(self):
        err = refusal(client(GATEWAY).files.list)
        self.assertEqual((err["class"], err["status_code"]), ("NotFoundError", 404))

    def test_a_list_of_models_from_a_server_that_is_not_there(self):
        err = refusal(client(ORPHAN).models.list)
        self.assertEqual((err["api"], err["status_code"]), (True, 502))


class Leaving(Case, unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.cancelled, self.generated = cancelled(), generated()

    def stopped(self):
        """Want the endless request to end before its time."""
        until("num_requests_running", running, 0)
        until("cancelled", cancelled, self.cancelled + 1)
        self.assertLess(generated() - self.generated, TOO_MANY, "the backend made all tokens")

    def test_the_client_closes_its_stream(self):
        with client(GATEWAY).chat.completions.create(**ENDLESS) as stream:
            next(stream)
            until("num_requests_running", running, 1)
        self.stopped()

    async def test_the_client_cancels_its_task(self):
        async with client(GATEWAY, openai.AsyncOpenAI) as c:
            stream = await c.chat.completions.create(**ENDLESS)
            await anext(stream)

            async def read():
                async for _ in stream:
                    pass

            await self.cancelled_while(read(), "num_requests_running", running)
        self.stopped()

    async def test_the_client_cancels_an_answer_in_one_piece(self):
        async with client(GATEWAY, openai.AsyncOpenAI) as c:
            whole = c.chat.completions.create(**{**ENDLESS, "stream": False})
            await self.cancelled_while(whole, "num_requests_running", running)
        self.stopped()

    @no_faults
    async def test_the_client_gives_up_before_the_first_token(self):
        def load():
            return json.loads(get(f"{BACKEND}/load"))["server_load"]

        def early():
            return metric(GATEWAY, "gateway_cancelled_requests_total", "before_first_byte")

        before = early()
        with faults(kind="slow-first-token", delay="60s"):
            async with client(GATEWAY, openai.AsyncOpenAI) as c:
                await self.cancelled_while(c.chat.completions.create(**ENDLESS), "server_load", load)
            until("server_load", load, 0)
            until("cancelled before the first byte", early, before + 1)

    async def cancelled_while(self, coroutine, what, ask):
        """Run it, and cancel it when ask gives 1."""
        task = asyncio.create_task(coroutine)
        await asyncio.to_thread(until, what, ask, 1)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
