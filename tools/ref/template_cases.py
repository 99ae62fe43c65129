"""Conversations that the chat templates are rendered with."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "현재 날씨를 알려 준다. Returns <b>degrees</b> & \"sky\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "도시 이름"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add", "description": "Adds two numbers.\n",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number", "default": 0.5},
                           "exact": {"type": "boolean", "default": True},
                           "note": {"type": ["string", "null"], "default": None}},
            "required": ["a", "b"],
        },
    },
}


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def tool(text, **more):
    return {"role": "tool", "content": text, **more}


def call(name, arguments, call_id="call_0"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SEOUL, PUSAN = '{"city": "서울"}', '{"city": "부산", "unit": "celsius"}'

CONVERSATIONS = {
    "one": [user("Hello")],
    "system": [system("You are terse."), user("2 + 2?")],
    "turns": [user("Hi"), assistant("Hello!"), user("How are you?")],
    "system turns": [system("Answer in Korean."), user("Hi"), assistant("안녕하세요!"),
                     user("Bye"), assistant("안녕히 가세요."), user("Thanks")],
    "korean": [system("당신은 두레의 도우미입니다."), user("논이 세 마지기, 소가 두 마리면 모두 몇이니?")],
    "spaces": [system("  padded \n"), user("\n  x  \n\n"), assistant("  y  "), user(" z ")],
    "odd text": [user("<b>&amp;\"quotes\" 'single' \\n \\ {{ x }} {% y %} {# z #}\t</b>"),
                 assistant("```c\nint x = 1;\n```"), user("👨‍👩‍👧‍👦 한\u0301 ｜▁")],
    "empty text": [user(""), assistant(""), user("")],
    "thoughts": [user("1 + 1?"), assistant("<think>\nIt is two.\n</think>\n\n2"), user("Sure?")],
    "two thoughts": [user("a"), assistant("<think>x</think>y</think>z"), user("b"),
                     assistant("<think>\n\n</think>\n\nc"), user("d")],
    "reasoning": [user("q"), assistant("a", reasoning_content="because\nof it\n"), user("r")],
    "answered": [user("q"), assistant("a", reasoning_content="why")],
    "answered thoughts": [system("s"), user("q"), assistant("<think>\nwhy\n</think>\n\na")],
    "ends with assistant": [user("Write a list"), assistant("1. first\n2.")],
    "two systems": [system("One."), system("Two."), user("x")],
    "late system": [user("x"), system("Late."), assistant("y"), user("z")],
    "two users": [user("first"), user("second")],
    "starts with assistant": [assistant("Welcome."), user("hi")],
    "call": [user("서울 날씨?"),
             assistant(None, tool_calls=[call("get_weather", SEOUL)]),
             tool("맑음, 21도", tool_call_id="call_0", name="get_weather")],
    "call answered": [system("Use tools."), user("서울 날씨?"),
                      assistant("", tool_calls=[call("get_weather", SEOUL)]),
                      tool('{"sky": "맑음", "t": 21}', tool_call_id="call_0", name="get_weather"),
                      assistant("맑고 21도입니다."), user("고마워")],
    "two calls": [user("서울과 부산 날씨?"),
                  assistant("확인해 볼게요.", tool_calls=[call("get_weather", SEOUL),
                                                   call("get_weather", PUSAN, "call_1")]),
                  tool("맑음", tool_call_id="call_0"), tool("비", tool_call_id="call_1"),
                  assistant("서울은 맑고 부산은 비가 옵니다."), user("내일은?")],
    "three calls": [user("x"), assistant(None, tool_calls=[
        call("add", '{"a": 1, "b": 2}'), call("add", '{"a": 3, "b": 4}', "c1"),
        call("get_weather", SEOUL, "c2")]), tool("3"), tool("7"), tool("맑음")],
    "call with object": [user("1 + 2.5?"), assistant("", tool_calls=[
        call("add", {"a": 1, "b": 2.5, "exact": False, "note": None, "list": [1, "둘"]})]),
        tool("3.5")],
    "calls twice": [user("x"), assistant(None, tool_calls=[call("add", '{"a": 1, "b": 2}')]),
                    tool("3"), assistant(None, tool_calls=[call("add", '{"a": 3, "b": 3}')]),
                    tool("6"), assistant("6"), user("again")],
    "call after thought": [user("x"), assistant("<think>I need the tool.</think>", tool_calls=[
        call("add", '{"a": 1, "b": 2}')]), tool("3")],
    "call with reasoning": [user("x"), assistant("", reasoning_content="the tool", tool_calls=[
        call("add", {"a": 1, "b": 2})]), tool("3")],
    "null calls": [user("x"), assistant("y", tool_calls=None), user("z")],
    "no calls": [user("x"), assistant("y", tool_calls=[]), user("z")],
    "parts": [user([{"type": "text", "text": "part one"}, {"type": "text", "text": " part two"}])],
    "tool object": [user("x"), assistant(None, tool_calls=[call("add", {"a": 1, "b": 2})]),
                    tool({"result": 3, "ok": True})],
    "other role": [user("x"), {"role": "developer", "content": "dev"}, user("y")],
    "prefix": [user("x"), assistant("Sure, ", prefix=True)],
    "nothing": [],
}

# What the templates of a family get besides messages; objects: it wants the arguments of calls as
# objects, not as JSON text; also: further variables, one set at a time.
BAR = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
CHATML = {"eos_token": "<|im_end|>"}
LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}

TEMPLATES = {
    "deepseek-coder": {"vars": {"bos_token": BAR["bos_token"], "eos_token": "<|EOT|>"}},
    "deepseek-v2": {"vars": BAR},
    "deepseek-v2.5": {"vars": BAR},
    "deepseek-v3": {"vars": BAR},
    "deepseek-r1": {"vars": BAR},
    "deepseek-r1-0528": {"vars": BAR},
    "deepseek-v3.1": {"vars": BAR, "also": [{"thinking": True}]},
    "deepseek-r1-distill": {"vars": BAR},
    "qwen2": {"vars": CHATML},
    "qwen2.5": {"vars": CHATML, "tools": True},
    "qwq": {"vars": CHATML, "tools": True},
    "qwen3": {"vars": CHATML, "tools": True, "also": [{"enable_thinking": False}]},
    "qwen3-coder": {"vars": CHATML, "tools": True, "objects": True},
    "llama-3": {"vars": LLAMA},
    "llama-3.1": {"vars": LLAMA, "tools": True, "also": [
        {"tools_in_user_message": False}, {"date_string": "1 Jan 2030"},
        {"builtin_tools": ["brave_search", "code_interpreter", "wolfram_alpha"]}]},
    "llama-3.2": {"vars": LLAMA, "tools": True, "also": [{"tools_in_user_message": False}]},
    "smollm2": {"vars": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}},
    "smollm3": {"vars": CHATML, "tools": True, "also": [
        {"enable_thinking": False}, {"python_tools": ["def f(x): return x"]}]},
    "kimi-k2-thinking": {"vars": {"bos_token": "[BOS]", "eos_token": "<|im_end|>"}, "tools": True},
    "glm-5.1": {"vars": {"eos_token": "<|endoftext|>"}, "tools": True, "objects": True, "also": [
        {"enable_thinking": False}, {"clear_thinking": False}]},
}
