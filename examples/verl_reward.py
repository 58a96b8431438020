"""Rewards of OpenKimi for verl: 1 for a right answer and -1 for another, judged by verl's own rules of the data set."""

from verl.utils.reward_score import default_compute_score


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options):
    """Return 1.0 or -1.0."""
    score = default_compute_score(data_source, solution_str, ground_truth, extra_info, **options)
    return 1.0 if (score["score"] if isinstance(score, dict) else score) > 0 else -1.0
