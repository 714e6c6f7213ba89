"""What servers answer when all is well."""

import asyncio
import json

import openai
from rig import GATEWAY, MODEL, REAL, Case, client, drain, only_simulated, unnamed

MESSAGES = [{"role": "user", "content": "What is the weather in Oslo?"}]
USUAL = {"model": MODEL, "messages": MESSAGES, "seed": 7, "max_tokens": 40}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


# Short words: a model of random weights finds no end by itself.
WORD = {"type": "string", "maxLength": 8}
TOOLS = [
    tool("get_weather", city=WORD, unit={"enum": ["celsius", "fahrenheit"]}),
    tool("get_time", zone=WORD, seconds={"type": "integer"}),
]
# Else a real vLLM lets the arguments be any JSON.
STRICT = [{"type": "function", "function": {**t["function"], "strict": True}} for t in TOOLS]
GET_TIME = {"type": "function", "function": {"name": "get_time"}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def counts(answer):
    return answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens


class Chat(Case):
    def three_ways(self, check, **params):
        """Ask whole, chunk by chunk, and through the SDK's own assembling helper.
        check gets a choice."""
        request = {**USUAL, **params}
        whole = self.same("whole", lambda c: c.chat.completions.create(**request))

        read = self.same("chunks", lambda c: drain(c.chat.completions.create(**request, stream=True)))
        self.assertIsNone(read["error"])
        self.assertGreater(len(read["chunks"]), 1 if REAL else 3)  # at the least the role, and all tokens together
        self.assertTrue(all(c.choices and not c.usage for c in read["chunks"]), "usage that nobody asked for")

        def assemble(c):
            try:
                with c.chat.completions.stream(**request) as stream:
                    return unnamed(stream.get_final_completion())
            except openai.LengthFinishReasonError as short:  # so the SDK gives what max_tokens ended
                return unnamed(short.completion)

        assembled = self.same("whole", assemble)
        for choice in whole.choices + assembled.choices:
            check(choice)
        self.assertEqual([gist(c) for c in assembled.choices], [gist(c) for c in whole.choices])

    def talks(self, choice):
        self.assertTrue(choice.message.content)

    def calls(self, *names):
        """A call of one of the named tools; the simulator calls the first."""

        def check(choice):
            [call] = choice.message.tool_calls
            self.assertIn(call.function.name, names if REAL else names[:1])
            [chosen] = [t["function"] for t in TOOLS if t["function"]["name"] == call.function.name]
            self.assertEqual(json.loads(call.function.arguments).keys(), chosen["parameters"]["properties"].keys())

        return check

    def test_plain(self):
        self.three_ways(self.talks)

    def test_two_answers_with_logprobs(self):
        def check(choice):
            self.assertGreater(len(choice.logprobs.content), 1)

        self.three_ways(check, n=2, logprobs=True, top_logprobs=2)

    def test_required_tool(self):
        check = self.calls("get_weather", "get_time")
        self.three_ways(check, tools=STRICT, tool_choice="required", parallel_tool_calls=False, max_tokens=400)

    def test_named_tool(self):
        self.three_ways(self.calls("get_time"), tools=STRICT, tool_choice=GET_TIME, max_tokens=400)

    def test_tool_of_its_own_choice(self):
        # A model of random weights, if left the choice, calls nothing.
        self.three_ways(self.talks if REAL else self.calls("get_weather"), tools=TOOLS)

    def test_json_by_schema(self):
        def check(choice):
            self.assertIsInstance(json.loads(choice.message.content)["n"], int)

        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        self.three_ways(check, response_format=form, max_tokens=100)

    def test_usage_where_it_is_asked_for(self):
        whole = self.same("usage", lambda c: c.chat.completions.create(**USUAL))
        chunks = self.same("usage", lambda c: drain(c.chat.completions.create(**USUAL, **USAGE)))["chunks"]
        self.assertEqual([bool(c.usage) for c in chunks], [False] * (len(chunks) - 1) + [True])
        self.assertEqual(counts(chunks[-1]), counts(whole))
        self.assertEqual(chunks[-1].system_fingerprint, whole.system_fingerprint)

    @only_simulated("the tiny model does not reason")
    def test_reasoning(self):
        request = {**USUAL, "extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
        whole = self.same("reasoning", lambda c: c.chat.completions.create(**request))
        chunks = self.same("reasoning", lambda c: drain(c.chat.completions.create(**request, stream=True)))["chunks"]
        message = whole.choices[0].message
        for key in ("reasoning", "content"):
            self.assertTrue(getattr(message, key))
            deltas = [getattr(c.choices[0].delta, key, None) or "" for c in chunks]
            self.assertEqual("".join(deltas), getattr(message, key))

    def test_conversation_with_a_tool(self):
        def converse(c):
            request = {**USUAL, "max_tokens": 400, "tools": STRICT, "tool_choice": GET_TIME}
            asked = c.chat.completions.create(**request).choices[0].message
            result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "It is noon."}
            told = c.chat.completions.create(**{**USUAL, "messages": [*MESSAGES, asked, result]})
            return [asked, told]

        asked, told = self.same("run", converse)
        self.assertEqual(asked.tool_calls[0].function.name, "get_time")
        self.assertTrue(told.choices[0].message.content)


def gist(choice):
    message = choice.message
    # A real vLLM writes arguments anew where it gives them whole.
    arguments = [json.loads(c.function.arguments) if REAL else c.function.arguments for c in message.tool_calls or []]
    return choice.finish_reason, message.content or None, arguments


class Others(Case):
    def test_completions(self):
        request = {"model": MODEL, "prompt": "Once upon a time", "seed": 7, "max_tokens": 40}
        whole = self.same("text", lambda c: c.completions.create(**request))
        read = self.same("text", lambda c: drain(c.completions.create(**request, stream=True)))
        self.assertIsNone(read["error"])
        self.assertTrue(all(c.choices and not c.usage for c in read["chunks"]), "usage that nobody asked for")
        self.assertTrue(whole.choices[0].text)
        self.assertEqual("".join(c.choices[0].text for c in read["chunks"]), whole.choices[0].text)

        counted = self.same("text", lambda c: drain(c.completions.create(**request, **USAGE)))
        self.assertEqual(counts(counted["chunks"][-1]), counts(whole))

    def test_responses(self):
        # Responses take no seed: without a temperature the text is the prompt's.
        request = {"model": MODEL, "input": "Tell me a story.", "temperature": 0, "max_output_tokens": 40}
        whole = self.same("story", lambda c: c.responses.create(**request))
        self.assertTrue(whole.output_text)
        read = self.same("story", lambda c: drain(c.responses.create(**request, stream=True)))
        self.assertIsNone(read["error"])
        self.assertEqual([e.sequence_number for e in read["chunks"]], list(range(len(read["chunks"]))))
        deltas = [e.delta for e in read["chunks"] if e.type == "response.output_text.delta"]
        self.assertGreater(len(deltas), 0 if REAL else 3)
        self.assertEqual("".join(deltas), whole.output_text)

        def assemble(c):
            with c.responses.stream(**request) as stream:
                return stream.get_final_response()

        self.assertEqual(self.same("story", assemble).output_text, whole.output_text)

    @only_simulated("a model that writes has no embeddings")
    def test_embeddings(self):
        for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            with self.subTest(form):
                got = self.same("vectors", lambda c: c.embeddings.create(model=MODEL, input=["one", "two words"], **form))
                self.assertEqual(len(got.data), 2)
                self.assertGreater(got.usage.total_tokens, 0)

    def test_models(self):
        self.assertEqual([m.id for m in self.same("models", lambda c: list(c.models.list()))], [MODEL])

    def test_20_streams_at_once(self):
        async def one(c, i):
            headers = {"X-Request-Id": f"crowd-{i}"}
            stream = await c.chat.completions.create(**{**USUAL, "seed": i}, stream=True, extra_headers=headers)
            return {"chunks": [unnamed(chunk) async for chunk in stream]}

        async def crowd(c):
            async with c:
                return await asyncio.gather(*(one(c, i) for i in range(20)))

        streams = self.same("crowd", lambda c: asyncio.run(crowd(c)), make=openai.AsyncOpenAI)
        self.assertEqual(len(streams), 20)
        for stream in streams:
            self.assertTrue(stream["chunks"][-1].choices[0].finish_reason)

    def test_request_ids(self):
        c = client(GATEWAY)
        headers = {"X-Request-Id": "my-own-id"}
        fresh = c.chat.completions.create(**USUAL)
        self.assertRegex(fresh._request_id, r"^[\w-]+$")
        self.assertEqual(fresh.id, f"chatcmpl-{fresh._request_id}", "the server has got another id")
        self.assertNotEqual(c.chat.completions.create(**USUAL)._request_id, fresh._request_id)

        self.assertEqual(c.chat.completions.create(**USUAL, extra_headers=headers)._request_id, "my-own-id")
        raw = c.chat.completions.with_raw_response.create(**USUAL, stream=True, extra_headers=headers)
        drain(raw.parse())
        self.assertEqual(raw.request_id, "my-own-id")
        with self.assertRaises(openai.NotFoundError) as refused:
            c.chat.completions.create(**{**USUAL, "model": "none"}, extra_headers=headers)
        self.assertEqual(refused.exception.request_id, "my-own-id")
