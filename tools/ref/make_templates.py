#!/usr/bin/env python3
"""Makes tests/golden/templates: what Jinja2 renders, in the environment of transformers.

    make_templates.py

NAME.jinja are the published chat templates (sources in README.md there) and are input here.
cases.jsonl: the conversations of template_cases.py in all of them; snippets.jsonl: the small templates
of jinja_snippets.py. An entry has `output`, or `error` with the class of the exception and its text."""

import copy
import datetime
import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

import jinja_snippets
import template_cases as tc

ROOT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "templates"
NOW = 1721995200  # 26 July 2024, noon UTC


def environment():
    """transformers' own environment, its clock stopped."""
    env = _compile_jinja_template("").environment
    then = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    env.globals["strftime_now"] = then.strftime
    return env


def outcome(env, template, variables):
    # Variables go through JSON, as the tests read them.
    variables = json.loads(json.dumps(variables))
    try:
        return {"output": env.from_string(template).render(**variables)}
    except jinja2.exceptions.TemplateSyntaxError as e:
        return {"error": e.message, "class": type(e).__name__, "lineno": e.lineno}
    except Exception as e:  # whatever a template can raise is an outcome
        return {"error": str(e), "class": type(e).__name__}


def case(env, name, text, messages, tools, variables, prompt):
    entry = {"template": name, "messages": messages, "tools": tools, "vars": variables,
             "add_generation_prompt": prompt}
    if "strftime_now" in text:
        entry["now"] = NOW
    seen = {"messages": messages, "tools": tools, "documents": None,
            "add_generation_prompt": prompt, **variables}
    result = outcome(env, text, seen)
    if "output" in result and "strftime_now" not in text:
        rendered, _ = render_jinja_template(
            [messages], tools=tools, chat_template=text, add_generation_prompt=prompt, **variables)
        assert rendered[0] == result["output"], (name, messages)
    return {**entry, **result}


def with_objects(messages):
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls") or []:
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str):
                call["function"]["arguments"] = json.loads(arguments)
    return messages


def cases(env):
    for name, about in tc.TEMPLATES.items():
        text = (ROOT / f"{name}.jinja").read_text()
        base = about["vars"]
        talks = tc.CONVERSATIONS
        if about.get("objects"):
            talks = {title: with_objects(messages) for title, messages in talks.items()}
        for title, messages in talks.items():
            yield case(env, name, text, messages, None, base, True)
            if title in ("answered", "call answered", "ends with assistant"):
                yield case(env, name, text, messages, None, base, False)
        if about.get("tools"):
            for title, tools in (("one", [tc.WEATHER]), ("system", [tc.ADD, tc.WEATHER]),
                                 ("call answered", [tc.WEATHER]), ("nothing", [tc.ADD])):
                yield case(env, name, text, talks[title], tools, base, True)
        for more in about.get("also", []):
            tools = [tc.WEATHER] if about.get("tools") else None
            for title in ("system", "reasoning", "prefix"):
                messages = talks[title]
                yield case(env, name, text, messages, tools, {**base, **more}, True)


def snippets(env):
    for text in jinja_snippets.snippets():
        entry = {"template": text, **outcome(env, text, jinja_snippets.V)}
        if "strftime_now" in text:
            entry["now"] = NOW
        yield entry


def write(path, rows):
    rows = list(rows)
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n"
                            for r in rows))
    n_error = sum("error" in r for r in rows)
    print(f"{path.name}: {len(rows)} entries, {n_error} of them errors, {path.stat().st_size} bytes")


def main():
    env = environment()
    write(ROOT / "cases.jsonl", cases(env))
    write(ROOT / "snippets.jsonl", snippets(env))
    text = json.dumps(jinja_snippets.V, ensure_ascii=False, indent=1)
    (ROOT / "snippets.vars.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
