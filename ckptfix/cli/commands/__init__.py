"""One subcommand a file, each with a `command`, named as the file."""

COMMANDS = {
    "adapt": "Write the checkpoint that loads.",
    "check": "Will these weights load?",
    "explain": "Explain an op or an error code.",
    "finetune": "Train it briefly under freeze policies.",
    "inspect": "Show a checkpoint or a target.",
    "invert": "Derive the reverse recipe.",
    "plan": "Show what each tensor would be made of.",
    "recipes": "List, show or copy the recipes that ship with ckptfix.",
    "run": "Prepare a checkpoint as a pipeline step.",
    "schema": "Print the JSON Schema of a document.",
    "suggest": "Infer the recipe.",
    "verify": "Prove an adapted checkpoint.",
}
"""What `ckptfix --help` says of each, without loading it."""
