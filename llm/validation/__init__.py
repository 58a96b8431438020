"""Theory laid beside a network: fits on prompts whose completions can all be enumerated."""
