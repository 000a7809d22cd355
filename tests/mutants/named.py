"""Faults that no test noticed once, by name; the tests that see a fault in a file; faults that change nothing."""

RECIPES, UNIT = "tests/unit/recipes", "tests/unit/recipes/test_training.py"
ORACLE, TRAINING = "tests/oracle/test_recipes_oracle.py", "tests/oracle/test_training_oracle.py"
MEMORY, POSTERIOR = "tests/unit/memory", "tests/oracle/test_posterior_oracle.py"
_T = "recipes/training"

GROUPS: dict[str, list[str]] = {
    _T: [f"{RECIPES}/test_losses.py", f"{RECIPES}/test_projectors.py", TRAINING, UNIT, ORACLE],
    "recipes/posterior": ["tests/oracle/test_posterior_oracle.py", "tests/unit/bridges/test_explain.py"],
    "pairs": ["tests/unit/pairs"],
    "memory": [f"{MEMORY}/test_judge.py", f"{MEMORY}/test_candidates.py", "tests/oracle/test_memory_oracle.py", MEMORY],
    "bridges/steps": ["tests/unit/bridges", "tests/contract/test_bridge_format.py"],
}
"""The tests that see a fault in a file, by folder below src/isthmus."""

TESTS: dict[str, list[str]] = {
    "recipes/connect.py": [ORACLE, f"{RECIPES}/test_recipe_settings.py", UNIT],
    "recipes/extend.py": [ORACLE, f"{RECIPES}/test_recipe_settings.py", UNIT],
    "recipes/config.py": [f"{RECIPES}/test_recipe_settings.py", f"{RECIPES}/test_config_files.py"],
    "recipes/solvers.py": [f"{RECIPES}/test_closed_form.py"],
    "recipes/hooks.py": [f"{RECIPES}/test_hooks.py"],
    "recipes/posterior/forecast.py": [f"{RECIPES}/test_forecast.py", POSTERIOR],
    "recipes/posterior/estimate.py": [f"{RECIPES}/test_forecast.py", POSTERIOR],
    "recipes/posterior/auto.py": [f"{RECIPES}/test_posterior_choice.py", POSTERIOR],
    "recipes/posterior/health.py": [f"{RECIPES}/test_posterior_health.py", POSTERIOR],
    "recipes/posterior/addition.py": [f"{RECIPES}/test_adding_spaces.py", POSTERIOR],
    "pairs/own_aggregation.py": [f"{RECIPES}/test_hooks.py"],
    "core/arrow_files.py": ["tests/unit/core/test_arrow_files.py"],
    "core/parquet_pages.py": ["tests/unit/core/test_parquet_pages.py"],
    "core/geometry.py": [TRAINING, UNIT, "tests/unit/core", "tests/unit/evaluation/test_baselines.py"],
    "bridges/routes.py": ["tests/unit/bridges/test_routes.py", "tests/unit/bridges"],
    "evaluation/baselines.py": ["tests/unit/evaluation/test_baselines.py"],
}
"""By file, where others see it."""

NAMED: list[tuple[str, str, str, str]] = [
    (
        "connect's image-audio term times 0", "recipes/connect.py",
        "(torch.stack(pseudo).mean() if pseudo else 0.0)", "(0.0 * torch.stack(pseudo).mean() if pseudo else 0.0)",
    ),
    (
        "connect's intra loss with the wrong sign", "recipes/connect.py",
        "return inter + self.config.intra_weight * intra", "return inter - self.config.intra_weight * intra",
    ),
    (
        "tau 3 ignored", "recipes/connect.py",
        "tau = self.config.pseudo_temperature or self.config.temperature", "tau = self.config.temperature",
    ),
    ("Xavier missing from extend's paper preset", "recipes/extend.py", '        "initialization": "xavier",\n', ""),
    ("Xavier missing from connect's paper preset", "recipes/connect.py", '        "initialization": "xavier",\n', ""),
    (
        "xavier equal to torch", f"{_T}/projectors.py",
        "nn.init.xavier_uniform_(layer.weight, generator=generator)",
        "nn.init.uniform_(layer.weight, -bound, bound, generator=generator)",
    ),
    (
        "extend without any intra loss", "recipes/extend.py",
        "return align + self.config.intra_weight * intra", "return align + 0.0 * intra",
    ),
    (
        "extend's intra target shuffled", "recipes/extend.py",
        "target, squared = batch[self.shared[0]],", "target, squared = batch[self.shared[0]].flip(0),",
    ),
    (
        "noise frozen", f"{_T}/loop.py",
        "noise_generator(device, config.seed, state.step, member)", "noise_generator(device, config.seed, 0, member)",
    ),
    ("weight decay dropped", f"{_T}/loop.py", "weight_decay=config.weight_decay", "weight_decay=0.0"),
    (
        "learning rate never decayed", f"{_T}/loop.py",
        "schedule.learning_rate(config.learning_rate, state.step)", "config.learning_rate",
    ),
    (
        "the same order every epoch", f"{_T}/schedule.py",
        "numpy_generator(seed, _PERMUTATION, epoch, member)", "numpy_generator(seed, _PERMUTATION, 0, member)",
    ),
    (
        "the incoming gradient of the loss ignored", f"{_T}/losses.py",
        "scale = gradients[0] * (0.5 /", "scale = torch.ones_like(gradients[0]) * (0.5 /",
    ),
    (
        "column sums overwritten in the blocked path", f"{_T}/losses.py",
        "column_sums[part[0]] += block.sum(1)", "column_sums[part[0]] = block.sum(1)",
    ),
    (
        "the gradient by z overwritten in the blocked path", f"{_T}/losses.py",
        "grad_z, ctx.low, add=True)", "grad_z, ctx.low)",
    ),
    (
        "aggregation's check does not look at the smallest cosine", "memory/method.py",
        'if errors["min_cosine"] < 1.0 - self.tolerance:', "if False:",
    ),
    (
        "aggregation's check does not look at the 99th percentile", "memory/method.py",
        'if errors["p99"] > allowed:', "if False:",
    ),
    (
        "aggregation's sample is always the first queries", "memory/method.py",
        "chosen = numpy_generator(seed, 256).choice(queries.n, min(CHECKED, queries.n), replace=False)",
        "chosen = np.arange(min(CHECKED, queries.n))",
    ),
    (
        "baselines centred by the test items' own mean", "evaluation/baselines.py",
        "centred_rows(unit, self.spaces.mean(end.space, end.items.modality))", "centred_rows(unit, unit.mean(0))",
    ),
    (
        "the two-sided dictionary silently one-sided", "evaluation/baselines.py",
        'settings = {"two_sided": True} if two_sided else {}', 'settings = {"two_sided": False} if two_sided else {}',
    ),
    (
        "the paired oracle by another method", "evaluation/baselines.py",
        "fit = solve(near, far, ClosedFormConfig(method=method))\n    return",
        'fit = solve(near, far, ClosedFormConfig(method="procrustes"))\n    return',
    ),
    (
        "BatchNorm's eps ignored in routes", "bridges/steps/affine.py",
        "np.sqrt(var + np.float32(eps))", "np.sqrt(var)",
    ),
]  # fmt: skip
"""Name, file, what stands there, what stands there instead."""

EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "memory/exact.py",
        "per_query = 4 * (sum(self.widths) + self.keys.dim - 3)",
    ): "how many queries go in one pass: memory and time, not what comes out",
    (
        "memory/method.py",
        "_SKETCHING_PASS_BYTES = 4 / PASS_BYTES",
    ): "the same, of a scan that goes through memory on disk",
}
"""Generated faults that change no result: file and line as changed, and why."""
