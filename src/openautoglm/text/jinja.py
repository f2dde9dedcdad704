"""Our prompt template in the language of transformers, for those who load a bundle with ``AutoTokenizer``.

It gives the same ids as `Template.prompt` for texts that hold no special token; transformers turns a literal
``<|user|>`` in a message into the special token, `Template` does not.
"""

from __future__ import annotations

import json

from openautoglm.text.template import Template
from openautoglm.text.tokenizer import ASSISTANT, END, GMASK, START, SYSTEM

_GLM4_TURN = "<|{{ message['role'] }}|>{{ '\\n' + message['content'] }}"
_PAIR_TURN = (
    "{% if not (loop.first and message['role'] == 'user' and plain_start) %}<|{{ message['role'] }}|>"
    "{% endif %}{{ message['content'] }}{% if message['role'] == 'assistant' %}" + END + "{% endif %}"
)


def chat_template(template: Template) -> str:
    """Return the Jinja chat template that renders as `template` does."""
    glm4 = template.kind == "glm4"
    system = ""
    if template.system is not None:
        text = json.dumps(("\n" if glm4 else "") + template.system)
        system = (
            "{% if not (messages | selectattr('role', 'equalto', 'system') | list) %}"
            f"{SYSTEM}{{{{ {text} }}}}{{% set spoken.yes = true %}}{{% endif %}}"
        )
    return (
        "{% set spoken = namespace(yes=false) %}"
        f"{GMASK if glm4 else ''}{START}{system}"
        "{% set plain_start = not spoken.yes %}"
        "{% if spoken.yes or not (messages | length == 0 or (messages | length == 1 and"
        " messages[0]['role'] == 'user' and not messages[0]['content'])) %}"
        f"{{% for message in messages %}}{_GLM4_TURN if glm4 else _PAIR_TURN}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
        "{% endif %}"
    )
