"""A retrieval task of MTEB made of local files, captions that seek pictures: MODEL FOLDER OUT, run without isthmus."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

assert find_spec("isthmus") is None, "the export needs no isthmus"
MODEL, FOLDER, OUT = sys.argv[1:]
UNTOLD = (
    *("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect"),
    *("sample_creation", "bibtex_citation"),
)


class Captions(AbsTaskRetrieval):
    """Each caption of `captions.json` seeks the picture of its name."""

    k_values = (1, 5, 10, 1000)
    metadata = TaskMetadata(
        name="LocalCaptions",
        description="Captions that seek pictures.",
        type="Any2AnyRetrieval",
        category="t2i",
        dataset={"path": "local", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        modalities=["text", "image"],
        **dict.fromkeys(UNTOLD),
    )

    def load_data(self, *arguments: Any, **options: Any) -> None:
        captions = json.loads(Path(FOLDER, "captions.json").read_text())
        files = [str(Path(FOLDER, f"{name}.png")) for name in captions]
        corpus = Dataset.from_dict({"id": list(captions), "image": files}).cast_column("image", Image())
        queries = Dataset.from_dict({"id": [f"q-{name}" for name in captions], "text": list(captions.values())})
        relevant = {f"q-{name}": {name: 1} for name in captions}
        split = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
        self.dataset, self.data_loaded = {"default": {"test": split}}, True


encoder = SentenceTransformerEncoderWrapper(SentenceTransformer(MODEL, device="cpu", local_files_only=True))
# MTEB takes a model whose name it does not know for one of texts alone.
encoder.mteb_model_meta = encoder.mteb_model_meta.model_copy(update={"modalities": ["text", "image"]})
result = mteb.evaluate(encoder, Captions(), cache=None, encode_kwargs={"batch_size": 8})
scores = result.task_results[0].scores["test"][0]
Path(OUT).write_text(json.dumps({name: scores[name] for name in scores if name.startswith(("recall_at", "map_at"))}))
