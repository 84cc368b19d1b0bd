"""What bench.py measured as a table: the goals first, each with its figure and whether it was met. Standard library only."""

# What is wanted of an H100 or H200 and LLaVA-1.5-7B's shape; of other GPUs the figures that are no time.
GOALS = [("decode_one", "decode of one sequence: of the rate of copies", 0.9, "at least"),
         ("decode_step", "a decode step of any number of sequences: of the rate of copies", 0.8, "at least"),
         ("prefill", "prefill: of the rate of matrix products", 0.7, "at least"),
         ("encode", "encode of 16 pictures: of the rate of matrix products", 0.5, "at least"),
         ("gaps", "the GPU between turns under load: of the wall", 0.05, "at most"),
         ("first_token", "picture to first token of one client, median: milliseconds", 25.0, "at most")]


def bounds_of(out):
    b = out["bounds"]
    return b.get("copy_bytes_s"), max(b.get("matmul_flop_s", {}).values(), default=None)


def decode_ratios(out, copy):
    return {d["sequences"]: d["read_bytes_s"] / copy for d in out.get("decode", []) if copy and "read_bytes_s" in d}


def worst(ratios, best, name):
    """(the worst of {n: ratio}, which)."""
    if not ratios:
        return None, None
    n = best(ratios, key=ratios.get)
    return ratios[n], f"{name} {n}"


def values(out):
    """{goal: (figure or None, of which run, or why there is none)}"""
    copy, peak = bounds_of(out)
    no_bound = f"no bounds: {out['bounds'].get('note', 'none')}"
    decode = decode_ratios(out, copy)
    loads = {x["clients"]: x for x in out.get("load", [])}
    gaps = {n: x["device_idle"] for n, x in loads.items() if x["device_idle"] is not None}
    not_seen = "a CPU has no gaps of its own" if out["device"] == "cpu" and loads else "not run"
    found = {"decode_one": (decode.get(1), None if copy else no_bound),
             "decode_step": worst(decode, min, "sequences") if decode else (None, None if copy else no_bound),
             "gaps": worst(gaps, max, "clients") if gaps else (None, not_seen),
             "first_token": (loads[1]["ttft_50_s"] * 1e3 if 1 in loads else None, None)}
    for part in ("prefill", "encode"):
        found[part] = (out[part]["flop_s"] / peak if part in out and peak else None, None if peak else no_bound)
    return found


def goals(out):
    """One object a goal: what, value, goal, verdict (met, missed, not measured: why)."""
    found, all_goals = values(out), []
    for name, what, goal, way in GOALS:
        value, note = found[name]
        if value is None:
            verdict = "not measured" + (f": {note}" if note else "")
        elif out["smoke"]:
            verdict = "smoke: no figure"
        else:
            verdict = "met" if (value >= goal if way == "at least" else value <= goal) else "missed"
        all_goals.append({"name": name, "what": what + (f" ({note})" if note and value is not None else ""), "value": value, "goal": goal, "way": way,
                          "verdict": verdict})
    return all_goals


# ---- rows ----

def ms(seconds):
    return f"{seconds * 1e3:.1f}"


def decode_row(d):
    if "step_s" not in d:
        return f"{d['tokens_s']:.0f} tokens/s ({d['note']})"
    return f"{d['step_s'] * 1e3:.2f} ms a step, {d['steady_tokens_s']:.0f} tokens/s"


def pass_row(p):
    return f"{ms(p['s'])} ms (wall {ms(p['wall_s'])})"


def clients_row(x):
    """Of vlmd and vLLM by the same client, of transformers by the whole batch."""
    two = [k for k in ("ttft", "itl") if f"{k}_50_s" in x]
    if two:
        times = [f"{k.upper()} {ms(x[f'{k}_50_s'])} / {ms(x[f'{k}_95_s'])} ms" for k in two]
    else:
        times = [f"{k.upper()} {ms(x[f'{k}_s'])} ms" for k in ("ttft", "itl") if f"{k}_s" in x]
    return "; ".join([f"{x['requests_s']:.2f} requests/s", *times])


def part_rows(out, copy, peak):
    if "start" in out:
        yield "start to /health", f"{out['start']['s']:.1f} s", None
    ratios = decode_ratios(out, copy)
    for d in out.get("decode", []):
        yield f"decode, {d['sequences']} sequences", decode_row(d), ratios.get(d["sequences"])
    for part, unit in (("prefill", "tokens"), ("encode", "pictures")):
        if part in out:
            yield f"{part}, {out[part][unit]:.0f} {unit}", pass_row(out[part]), out[part]["flop_s"] / peak if peak else None


def deterministic_rows(out):
    """Its time as so many times the default's."""
    exact, plain = out.get("deterministic", {}), {d["sequences"]: d for d in out.get("decode", [])}
    for d in exact.get("decode", []):
        both = [x.get("step_s") for x in (d, plain.get(d["sequences"], {}))]
        yield f"--deterministic: decode, {d['sequences']} sequences", decode_row(d), both[0] / both[1] if all(both) else None
    for part, unit in (("prefill", "tokens"), ("encode", "pictures")):
        if part in exact:
            yield f"--deterministic: {part}, {exact[part][unit]:.0f} {unit}", pass_row(exact[part]), out[part]["flop_s"] / exact[part]["flop_s"] if part in out else None


def load_rows(out):
    for x in out.get("load", []):
        idle = "" if x["device_idle"] is None else f"; between turns {x['device_idle']:.3f} of the wall"
        yield f"load, {x['clients']} clients", clients_row(x) + idle, None
        for other in ("hf", "vllm"):
            theirs = out.get(other, {}).get("clients", {}).get(str(x["clients"]), {})
            if "requests_s" in theirs:
                yield f"  {other}, {x['clients']} at once", clients_row(theirs), x["requests_s"] / theirs["requests_s"]
            elif "note" in theirs:
                yield f"  {other}, {x['clients']} at once", theirs["note"], None
    for other in ("hf", "vllm"):
        if "note" in out.get(other, {}):
            yield other, "not run: " + out[other]["note"], None


def table(out):
    copy, peak = bounds_of(out)
    bounds = out["bounds"]
    lines = [f"{out['date']}, commit {out['commit']}, {bounds.get('gpu', out['device'])}, {out['model']}{', smoke: no figures' if out['smoke'] else ''}.",
             f"Copies {copy / 1e9:.0f} GB/s, bf16 products {peak / 1e12:.1f} TFLOP/s." if copy and peak else f"No bounds: {bounds.get('note')}.", "",
             "| goal | | figure | |", "|---|---|---|---|"]
    for g in out["goals"]:
        value = "" if g["value"] is None else f"{g['value']:.3f}" if g["value"] < 10 else f"{g['value']:.1f}"
        lines.append(f"| {g['what']} | {g['way']} {g['goal']:g} | {value} | {g['verdict']} |")
    lines += ["", "Ratios: to the rate of copies, to that of products; of --deterministic its time to the default's; of others vlmd's requests a second to "
              "theirs. p50 / p95.", "", "| what | figure | ratio |", "|---|---|---|"]
    for rows in (part_rows(out, copy, peak), deterministic_rows(out), load_rows(out)):
        lines += [f"| {what} | {figure} | {'' if ratio is None else f'{ratio:.2f}'} |" for what, figure, ratio in rows]
    told = set()
    for name, p in out.get("profile", {}).items():
        what = next(g["what"] for g in out["goals"] if g["name"] == name)
        lines += ["", f"Where the time goes - {what}" + (f" ({p['note']})" if "note" in p else f" ({p['nsys']})" if "nsys" in p else "") + ":"]
        if p.get("text"):
            lines += ["", "    as above"] if p["text"] in told else ["", *("    " + x for x in p["text"].rstrip().splitlines())]
            told.add(p["text"])
    return "\n".join(lines) + "\n"
