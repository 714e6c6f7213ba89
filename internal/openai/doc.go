// Package openai knows the wire of OpenAI's API as vLLM speaks it: what a
// request asks for ([Peek]), where an event of a stream ends ([Events]), what
// an event says ([Stream.Read]), what a request cost ([Usage]), and what an
// error looks like ([Error]).
//
// It reads bytes in place and never rewrites an answer. Nothing in it trusts
// its input: every reader gives an answer, or none, for any bytes whatever.
package openai
