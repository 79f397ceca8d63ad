"""Conversations in the terminal."""

from mutants.mutant import noticed_by

CHAT = "align/commands/chat.py"
chat = noticed_by("tests/commands/daily/test_chat.py")
MUTANTS = [
    chat("chat: nothing is remembered", CHAT, "[*self.messages, asked] if self.chats else text", "[*self.opening, asked] if self.chats else text"),
    chat("chat: /reset forgets nothing", CHAT, "                one.messages = list(one.opening)\n", "                pass\n"),
    chat("chat: /reset forgets the system", CHAT, "one.messages = list(one.opening)", "one.messages = []"),
    chat("chat: the system's message is lost", CHAT, "[] if system is None else [", "[] if True else ["),
    chat("chat: a system nobody says", CHAT, "if system is not None and not self.chats:", "if False:"),
    chat("chat: an answer steers the terminal", CHAT, "printable(line, len(line)) for line in text", "line for line in text"),
    chat("chat: an unknown command is a turn", CHAT, 'elif line.startswith("/"):', "elif False:"),
    chat("chat: an empty line is a turn", CHAT, "elif line.strip():", "else:"),
    chat("chat: a long conversation goes on", CHAT, "length + decoding.max_new_tokens > places:", "False:"),
    chat("chat: Ctrl-C in an answer ends the chat", CHAT, "except KeyboardInterrupt:", "except MemoryError:"),
    chat("chat: what was said before Ctrl-C is forgotten", CHAT, "                if streamer.said:\n", "                if finished:\n"),
    chat("chat: a cut answer looks whole", CHAT, "        if not finished:\n", "        if False:\n"),
    chat("chat: the reference has the adapter", CHAT, "adapter=None, adapters_off=True)", "adapter=None)"),
    chat("chat: any other shares the weights", CHAT, "and not policy.adapter and", "and"),
    chat("chat: weights are loaded twice", CHAT, "if first is not None and first.adapter", "if False and first.adapter"),
    chat("chat: two answer as one", CHAT, "if options.beside is not None and (len(policies) < 2 or", "if False and (len(policies) < 2 or"),
    chat("chat: another name is another model", CHAT, "len({repr(each) for each in policies.values()}) < 2", "False"),
    chat("chat: /reset helps whatever is too long", CHAT, "RESET if alone + decoding.max_new_tokens <= places else", "RESET if True else"),
    chat("chat: a system of no text", CHAT, 'for letter in options.system or ""', 'for letter in ""'),
    chat("chat: bytes of no text end it", "align/errors.py", '(sys.stdin, "replace"), ', ""),
    chat("chat: who is not there is not named", "align/models/loading.py", 'getattr(error, "errno", 0) is None', "False"),
    chat("chat: a seed draws nothing", CHAT, "names = (\"max_new_tokens\", \"temperature\", \"seed\")", "names = (\"max_new_tokens\", \"temperature\")"),
    chat("chat: a streamer hears nothing", "align/sampling/generate.py", "            streamer=streamer,\n", ""),
    chat("chat: another draw than sample's", "align/sampling/generate.py", "[seed_of(ids, 0, decoding.seed)], decoding, streamer)", "[seed_of(ids, 1, decoding.seed)], decoding, streamer)"),
]  # fmt: skip
