"""Computes the figures of a report anew from what it keeps of each item, with NumPy and SciPy alone and none of our code.

Each interval is found another way than in the report: a score interval as the shares whose score test is not rejected, with
the restricted likelihood maximised over a grid; Hall's as roots of its cubic. What is not computed anew is named.

Run: python scripts/recompute.py RUN/reports/ID   (or any folder with report.json, responses.jsonl and scores.jsonl)
Exit code 1 if a figure differs by more than 1e-4 of its size.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats

Z = float(stats.norm.ppf(0.975))
ALIKE = 1e-12


def clustered(values, labels):
    """Sum and number of the items of each label."""
    found = {}
    for value, label in zip(values, labels, strict=True):
        total, count = found.get(label, (0.0, 0))
        found[label] = (total + value, count + 1)
    sums, counts = zip(*found.values(), strict=True)
    return np.array(sums), np.array(counts, dtype=float)


def effect(sums, counts, value, independent):
    """Kish's design effect, drawn towards a correlation of one half that counts as one cluster."""
    worst = float((counts**2).sum() / counts.sum())
    if independent <= 0:
        return worst
    believed, squares = 1 + (worst - 1) / 2, (sums - counts * value) ** 2
    groups = len(sums)
    if squares.sum() <= ALIKE * independent:
        return believed / (groups + 1)
    known = squares.sum() ** 2 / (squares**2).sum()
    return (known * squares.sum() * groups / (groups - 1) / independent + believed) / (known + 1)


def few(groups):
    """The variance counts more where few clusters tell it."""
    return 1.0 if groups < 2 else (float(stats.t.ppf(0.975, groups - 1)) / Z) ** 2


def mean(values, labels, low=-math.inf, high=math.inf):
    """Hull of Student's t and Hall's interval; of values that are all alike, what unseen items could do."""
    values = np.asarray(values, dtype=float)
    sums, counts = clustered(values, labels)
    n, value = len(sums), float(values.mean())
    off = (sums - counts * value) / counts.mean()
    if off.max() - off.min() <= ALIKE * max(1.0, abs(value)):
        unseen = 1 - 0.025 ** (1 / n)
        return value, value - unseen * (value - low), value + unseen * (high - value), n
    deviation, skew = off.std(ddof=1), float(stats.skew(off))
    reach = float(stats.t.ppf(0.975, n - 1)) / math.sqrt(n)

    def hall(y):
        if abs(skew) < 1e-6:
            return y
        roots = np.roots([skew**2 / 27, skew / 3, 1.0, skew / (6 * n) - y])
        return float(roots[np.argmin(np.abs(roots.imag))].real)

    ends = [value - deviation * w for y in (reach, -reach) for w in (y, hall(y))]
    return value, max(min(ends[:2]), low), min(max(ends[2:]), high), n


def difference(values, labels):
    """Tango's interval of won less lost: where the score test under the likeliest law of that difference does not reject."""
    values = np.asarray(values, dtype=float)
    sums, counts = clustered(values, labels)
    n, value, groups = float(len(values)), float(values.mean()), len(sums)
    won, lost = float(values[values > 0].sum()), float(-values[values < 0].sum())
    if counts.max() > 1 or set(np.unique(values)) - {-1.0, 0.0, 1.0}:
        deff = effect(sums, counts, value, won + lost - n * value**2) * few(groups)
        won, lost, n = won / deff, lost / deff, n / deff

    def score(delta):
        least, most = max(0.0, -delta), (1 - delta) / 2

        def against(q):
            parts = ((won, q + delta), (lost, q), (n - won - lost, 1 - 2 * q - delta))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count > 1e-12)

        q = float(optimize.minimize_scalar(against, bounds=(least, most), method="bounded", options={"xatol": 1e-13}).x)
        variance = n * (2 * q + delta - delta**2)
        return (won - lost - n * delta) / math.sqrt(max(variance, 1e-300))

    edge = 1 - 1e-9
    low, high = -1.0, 1.0
    if value > -1 and score(-edge) > Z:
        low = optimize.brentq(lambda d: score(d) - Z, -edge, min(value, edge))
    if value < 1 and score(edge) < -Z:
        high = optimize.brentq(lambda d: score(d) + Z, max(value, -edge), edge)
    return value, low, high, groups


def share(values, labels):
    """Wilson's interval, beside a Poisson count's for two or three; with ties that of the difference."""
    values = np.asarray(values, dtype=float)
    if set(np.unique(values)) - {0.0, 1.0}:
        _, low, high, n = difference(2 * values - 1, labels)
        return float(values.mean()), (1 + low) / 2, (1 + high) / 2, n
    sums, counts = clustered(values, labels)
    p, n, groups = float(values.mean()), float(len(values)), len(sums)
    if counts.max() > 1:
        n /= effect(sums, counts, p, p * (1 - p) * n) * few(groups)
    right, most = p * n, 3 if n > 50 else 2

    def outside(x):
        return (p - x) ** 2 * n - Z**2 * x * (1 - x)

    low = 0.0 if right <= 0 else optimize.brentq(outside, 0.0, p - 1e-12)
    high = 1.0 if right >= n else optimize.brentq(outside, p + 1e-12, 1.0)
    if 0 < right <= most:
        low = min(low, float(stats.chi2.ppf(0.05, 2 * right)) / (2 * n))
    if 0 < n - right <= most:
        high = max(high, 1 - float(stats.chi2.ppf(0.05, 2 * (n - right))) / (2 * n))
    return p, low, high, groups


def larger(one, other):
    """1 where one is larger, 0 where the other is, one half where neither."""
    return (np.sign(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)) + 1) / 2


def of_pairs(rows, prefix):
    """Rankings, log-ratios and the scores of the implicit reward."""
    c, r, rc, rr, nc, nr = (
        np.array([row[key] for row in rows])
        for key in ("chosen", "rejected", "ref_chosen", "ref_rejected", "chosen_tokens", "rejected_tokens")
    )
    labels = [row.get("prompt", row["pair"]) for row in rows]
    implicit, longer = larger(c - rc, r - rr), larger(nc, nr)
    shares = {
        "ranking_accuracy/logp": larger(c, r), "ranking_accuracy/mean_logp": larger(c / nc, r / nr),
        "ranking_accuracy/implicit_reward": implicit, "ranking_accuracy/longer_wins": longer,
        "ref_ranking_accuracy/logp": larger(rc, rr), "ref_ranking_accuracy/mean_logp": larger(rc / nc, rr / nr),
    }  # fmt: skip
    means = {"log_ratio/chosen": c - rc, "log_ratio/rejected": r - rr, "logps/chosen": c, "logps/rejected": r}
    found = {name: share(values, labels) for name, values in shares.items()}
    found |= {name: mean(values, labels) for name, values in means.items()}
    found["ranking_accuracy/above_longer_wins"] = difference(implicit - longer, labels)
    if "margin" in rows[0]:
        sure = 1 / (1 + np.exp(-np.array([row["margin"] for row in rows])))
        found["calibration/brier"] = mean((1 - sure) ** 2, labels, 0.0, 1.0)
        found["calibration/nll"] = mean(-np.log(sure), labels, 0.0)
    return {f"{prefix}{name}": figure for name, figure in found.items()}


def of_completions(rows, name, prefix):
    """Negative log-likelihood per token of a policy, of the reference, and their difference: ratios of sums over prompts."""
    prompts, index = np.unique([row["prompt"] for row in rows], return_inverse=True)
    own, ref, tokens = (np.bincount(index, [row[key] for row in rows]) for key in ("policy", "ref", "tokens"))
    figures = {}
    for side, sums, low in (("policy", -own, 0.0), ("ref", -ref, 0.0), ("difference", ref - own, -math.inf)):
        ratio = sums.sum() / tokens.sum()
        each = ratio + (sums - ratio * tokens) * len(prompts) / tokens.sum()
        figures[f"{'' if side == 'ref' else prefix}{name}/nll/{side}"] = mean(each, range(len(prompts)), low)
    return figures


def both_sides(name, own, ref, bounds, prefix, labels=None, shares=False):
    """A quantity of a policy, of the reference, and their difference."""
    labels = list(range(len(own))) if labels is None else labels
    span, off = bounds[1] - bounds[0], np.asarray(own, dtype=float) - np.asarray(ref, dtype=float)
    one = (lambda values: share(values, labels)) if shares else (lambda values: mean(values, labels, *bounds))
    apart = difference(off, labels) if shares else mean(off, labels, -span, span)
    return {f"{prefix}{name}/policy": one(own), f"{name}/ref": one(ref), f"{prefix}{name}/difference": apart}


def of_answers(rows, who, prefix, gold_range, most_tokens):
    """Lengths, divergences, gold reward and win rates of one policy's answers."""
    own, ref = ([row["measured"].get(side, {}) for row in rows] for side in (who, "ref"))
    found = {}

    def flat(side, key):
        return [value for row in side for value in row[key]]

    if "tokens" in own[0]:
        tokens = [[float(np.mean(row["tokens"])) for row in side] for side in (own, ref)]
        found |= both_sides("length_tokens", *tokens, (0.0, most_tokens), prefix)
        labels = [i for i, row in enumerate(own) for _ in row["cut_off"]]
        cut = flat(own, "cut_off"), flat(ref, "cut_off")
        found |= both_sides("cut_off", *cut, (0.0, 1.0), prefix, labels, shares=True)
    if "log_ratio" in own[0]:
        sides = [np.array([row[key] for row in own]) for key in ("log_ratio", "ref_log_ratio")]
        index = list(range(len(own)))
        terms = {
            "kl": lambda r: 2 * r / (1 + np.exp(-r)) - 2 * np.tanh(r / 2),
            "forward_kl": lambda r: -2 * r / (1 + np.exp(r)) + 2 * np.tanh(r / 2),
            "jensen_shannon": lambda r: np.log(2) - special.entr(special.expit(r)) - special.entr(special.expit(-r)),
        }
        for name, term in terms.items():
            most = math.log(2) if name == "jensen_shannon" else math.inf
            found[f"{prefix}{name}"] = mean(np.maximum((term(sides[0]) + term(sides[1])) / 2, 0.0), index, 0.0, most)
        found[f"{prefix}entropy/policy"] = mean([row["surprise"] for row in own], index, 0.0)
        found["entropy/ref"] = mean([row["surprise"] for row in ref], index, 0.0)
    if "gold_reward" in own[0]:
        gold = [[float(np.mean(row["gold_reward"])) for row in side] for side in (own, ref)]
        found |= both_sides("gold_reward", *gold, gold_range, prefix)
        labels = [i for i, row in enumerate(own) for _ in row["gold_reward"]]
        wins = larger(flat(own, "gold_reward"), flat(ref, "gold_reward"))
        found[f"{prefix}gold_reward/win_rate"] = share(wins, labels)
    for key in own[0]:
        if key.startswith("wins/"):
            known = [(win, i) for i, row in enumerate(own) for win in row[key] if win is not None]
            if known:
                name = key.removeprefix("wins/")
                found[f"{prefix}win_rate/{name}"] = share(*(list(part) for part in zip(*known, strict=True)))
    return found


def recomputed(folder, gold_range):
    """What report.json holds, and every figure that can be computed anew, by name: value, low, high, n."""
    read = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    scores, answers = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("scores.jsonl", "responses.jsonl")
    )
    found = {}
    for key in dict.fromkeys((row["set"], row["subject"]) for row in scores if "label" not in row):
        rows = [row for row in scores if (row["set"], row["subject"]) == key]
        who = "" if key[1] == read["name"] else f"{key[1]}/"
        of_whole = "completion" in rows[0]
        found |= of_completions(rows, key[0], who) if of_whole else of_pairs(rows, f"{who}{key[0]}/")
    most_tokens = read["settings"].get("decoding", {}).get("max_new_tokens", math.inf)
    for who in answers[0].get("measured", ()) if answers else ():
        if who != "ref":
            found |= of_answers(answers, who, "" if who == read["name"] else f"{who}/", gold_range, most_tokens)
    return read, {name: (e[0], -math.inf, math.inf, e[3]) if e[3] < 5 else e for name, e in found.items()}


NOT_ANEW = {
    r"(.*/)?(distinct_[12]|self_bleu)(/.*)?": "diversity",
    r".*calibration/(temperature|ece).*|calibration/.*": "calibration error and temperature",
    r"(.*/)?(win_rate_lc|longer_wins|position_bias)(/.*)?": "lengths in characters, orders of answers",
    r".*/told_apart/.*|.*/log_ratio/(un)?desirable": "labels",
    r"(.*/)?rating(/.*)?|judges/.*": "ratings, and a judge's verdicts on all pairs",
    r"comparisons/.*|best_round/.*|(.*/)?kl_before|.*/logps_chosen_minus_.*": "policies against each other",
    r"(.*/)?(objectives|front|instructions|refusals|best_of_k)/.*": "objectives, benchmarks, best of k",
}
"""What is not computed anew, by the pattern of its name; anything else is named by itself."""


def every_figure(read):
    """Names of all figures of a report.json: of the estimates, and of others behind the key that holds them."""
    names = list(read["estimates"])
    for measure, rows in read.get("comparisons", {}).items():
        names += [f"comparisons/{measure}/{row['first']} - {row['second']}" for row in rows]
    for key in ("best_of_k", "calibration"):
        names += [f"{key}/{name}/{part}" for name, parts in read.get(key, {}).items() for part in parts]
    for name, of in read.get("judges", {}).items():
        names += [f"judges/{name}/{key}" for key, value in of.items() if value]
    return names + [f"best_round/{name}" for name in read.get("best_round", {})]


def by_kind(names):
    """Names under what they are of."""
    found = {}
    for name in names:
        fitting = [kind for pattern, kind in NOT_ANEW.items() if re.fullmatch(pattern, name)]
        found.setdefault((*fitting, "not known here")[0], []).append(name)
    return found


def main():
    """Compare, and print what differs, and what was not computed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--gold-range", type=float, nargs=2, default=(-math.inf, math.inf), metavar=("LOW", "HIGH"),
        help="the range of the gold reward, where it is known; positive_sentiment has -1 1",
    )  # fmt: skip
    options = parser.parse_args()
    read, found = recomputed(options.folder, tuple(options.gold_range))
    reported, off = read["estimates"], []
    for name in reported.keys() & found.keys():
        for key, got in zip(("value", "low", "high", "n"), found[name], strict=True):
            told = float(reported[name][key])
            if told != got and not abs(told - got) <= 1e-4 * max(1.0, abs(told)):
                off.append(f"{name} {key}: {told} in the report, {got} computed anew")
    names = every_figure(read)
    missing = [name for name in names if name not in found]
    print("\n".join(sorted(off)) or "no figure differs")
    print(f"{len(names) - len(missing)} of {len(names)} figures computed anew; {len(missing)} not:")
    for kind, some in by_kind(missing).items():
        print(f"- {kind}: {', '.join(some)}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
