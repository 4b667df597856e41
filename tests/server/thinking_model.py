# SPDX-License-Identifier: Apache-2.0
"""A served model of random weights whose template knows thoughts and tools.

Its words are noise. What has a form (calls that must be made, answers to a schema) has it all the
same, and its thoughts are whatever stands before `</think>`.
"""

from __future__ import annotations

from pathlib import Path

import tiny_chat

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Write <tool_call>\n{"name": …, "arguments": …}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>\n{% endif %}"
    "{% if message.name %}[{{ message.name }}] {% endif %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% elif enable_thinking %}<think>\n{% endif %}{% endif %}"
)


def write(directory: Path) -> Path:
    """``thinker.gguf``."""
    return tiny_chat.write(directory / "thinker.gguf", template=TEMPLATE)
