"""No-code training: an estimator named by hyperparameters, fitted, saved, evaluated, reported."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.utils
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.neighbors import NearestNeighbors

from skserve import telemetry
from skserve.config import Config
from skserve.errors import StartError
from skserve.inference.calls import Call
from skserve.inference.model import Model
from skserve.training import fit, recipe
from skserve.training.job import Job
from tests.test_train import Place

WINE = load_wine()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(telemetry, "configure", lambda *_: None)  # pytest has its own handlers
    (tmp_path / "ml" / "input" / "config").mkdir(parents=True)
    return Place(tmp_path / "ml")


def csv_of(X, y, names, target="class"):
    rows = [",".join([*names, target])]
    rows += [",".join(map(str, [*row, label])) for row, label in zip(X.tolist(), y, strict=True)]
    return "\n".join(rows) + "\n"


def run(place: Place, code: int = 0) -> str:
    """Run the child's part in this process; return the page it wrote, or its failure."""
    config = Config(model_dir=place.base / "model")
    Job.read(config).prepare()
    assert fit.fit(config) == code
    if code:
        return place.first_line
    return (place.base / "output" / "data" / "report.html").read_text()


def metrics(text: str) -> dict[str, float]:
    """Find metrics as SageMaker does: by a regular expression for each, in the log."""
    return {name: float(value) for name, value in re.findall(r"(\w+)=([0-9.eE+-]+);", text)}


def drawn(page: str) -> list[str]:
    """Return the plots' titles, having parsed each plot."""
    svgs = re.findall(r"<svg viewBox.*?</svg>", page, re.DOTALL)
    return [str(ET.fromstring(svg).findtext("title")) for svg in svgs]


def test_a_classifier_is_fitted_saved_evaluated_and_shown(place, capsys):
    place.channel("train", wine__csv=csv_of(WINE.data, WINE.target, WINE.feature_names))
    place.hyperparameters(
        estimator=["sklearn.preprocessing.StandardScaler",
                   {"sklearn.linear_model.LogisticRegression": {"C": 0.5}}],
        target="class", logisticregression__max_iter="500", folds="3",
    )  # fmt: skip

    page = run(place)

    model = Model.load(place.base / "model", Config())
    assert model.estimator[-1].get_params()["C"] == 0.5
    assert model.estimator[-1].max_iter == 500
    body = json.dumps(WINE.data[:3].tolist()).encode()
    assert model.invoke(Call(body, "application/json")).body == b"[0,0,0]"  # whole numbers
    assert model.handler.schema.names == tuple(WINE.feature_names)
    found = metrics(capsys.readouterr().out)
    expected = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss")
    assert set(found) == {f"validation_{name}" for name in expected}
    assert found["validation_accuracy"] > 0.95
    assert drawn(page) == ["Confusion", "What the model looks at"]
    assert "sk-estimator" in page or "sk-top-container" in page  # scikit-learn's own diagram
    assert not re.search(r"""(?:src|href)=["'](?!#)(?!https://scikit-learn\.org)""", page)
    record = json.loads((place.base / "model" / "skserve.json").read_text())
    assert record["sample"] == WINE.data[0].tolist()
    schema = json.loads((place.base / "model" / "schema.json").read_text())
    assert schema["columns"][0] == {"name": WINE.feature_names[0], "type": "number"}
    assert schema["example"] == [record["sample"]]


def test_a_validation_channel_is_used_instead_of_folds(place, capsys, caplog):
    data = load_diabetes()
    even, odd = np.arange(0, 442, 2), np.arange(1, 442, 2)
    together = np.column_stack([data.data, data.target])
    place.channel("train")
    place.channel("validation")
    np.save(place.base / "input/data/train/a.npy", together[even])
    np.save(place.base / "input/data/validation/a.npy", together[odd])
    place.hyperparameters(estimator="sklearn.linear_model.LinearRegression", target="-1")

    page = run(place)

    found = metrics(capsys.readouterr().out)
    model = joblib.load(place.base / "model" / "model.joblib")
    errors = model.predict(data.data[odd]) - data.target[odd]
    assert found["validation_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)
    assert set(found) == {"validation_rmse", "validation_mae", "validation_r2"}
    assert "the validation channel, 221 rows" in page
    assert drawn(page) == ["Predicted and true", "Errors", "What the model looks at"]


def test_two_classes_get_a_roc_curve(place, capsys):
    X, y = load_iris(return_X_y=True)
    place.channel("train", a__csv=csv_of(X[:100], np.array(["<u>", "c"])[y[:100]], "abcd"))
    place.hyperparameters(estimator="sklearn.svm.SVC", target="class")

    page = run(place)

    assert drawn(page) == ["Confusion", "ROC"]
    assert "<u>" not in page
    assert metrics(capsys.readouterr().out)["validation_roc_auc"] == 1.0


def test_many_classes_are_drawn_in_order_and_within_the_picture(place):
    names = [*range(9), *range(100, 111)]
    rows = "".join(f"{at},{name}\n" for at, name in enumerate(names * 4))
    place.channel("train", a__csv=rows)
    place.hyperparameters(estimator="sklearn.neighbors.KNeighborsClassifier", target="1", folds="2")

    page = run(place)

    (picture,) = re.findall(r"<svg viewBox.*?</svg>", page, re.DOTALL)
    drawn = ET.fromstring(picture)
    width = float(drawn.attrib["viewBox"].split()[2])
    cells = [float(one.attrib["x"]) + float(one.attrib["width"]) for one in drawn.iter("rect")]
    assert (len(cells), max(cells) <= width) == (400, True)
    labels = [one.text for one in drawn.iter("text") if one.attrib["text-anchor"] == "end"]
    assert labels == [str(name) for name in names]


UNSUPERVISED = {
    "sklearn.neighbors.NearestNeighbors": (
        {"train_nearest_distance", "train_nearest_distance_median"},
        ["Distance to the nearest other row"],
    ),
    "sklearn.cluster.KMeans": ({"train_clusters", "train_silhouette"}, ["Rows"]),
    "sklearn.ensemble.IsolationForest": ({"train_outliers"}, ["Rows"]),
    "sklearn.decomposition.PCA": ({"train_explained_variance"}, ["Explained variance"]),
    "sklearn.neighbors.KernelDensity": (set(), []),
}


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_without_a_target_a_model_is_described_by_its_own_data(place, capsys, name):
    place.channel("train")
    np.save(place.base / "input/data/train/a.npy", WINE.data)
    place.hyperparameters(estimator=name)

    page = run(place)

    measured, plots = UNSUPERVISED[name]
    assert set(metrics(capsys.readouterr().out)) == measured
    assert drawn(page) == plots
    Model.load(place.base / "model", Config())


def test_neighbours_equal_those_of_scikit_learn(place):
    place.channel("train")
    np.save(place.base / "input/data/train/a.npy", WINE.data)
    place.hyperparameters(estimator="sklearn.neighbors.NearestNeighbors", n_neighbors="10")

    run(place)

    fitted = joblib.load(place.base / "model" / "model.joblib")
    expected = NearestNeighbors(n_neighbors=10).fit(WINE.data).kneighbors(WINE.data)
    for got, wanted in zip(fitted.kneighbors(WINE.data), expected, strict=True):
        assert np.array_equal(got, wanted)


def test_text_columns_go_through_a_column_transformer(place):
    rows = "colour,price,good\n" + "red,1,yes\nwhite,2,no\nred,,yes\nwhite,4,no\n" * 5
    place.channel("train", a__csv=rows)
    transformers = [
        ["words", {"sklearn.preprocessing.OneHotEncoder": {"handle_unknown": "ignore"}},
         ["colour"]],
        ["numbers", ["sklearn.impute.SimpleImputer", "sklearn.preprocessing.StandardScaler"],
         ["price"]],
    ]  # fmt: skip
    place.hyperparameters(
        estimator=[{"sklearn.compose.ColumnTransformer": {"transformers": transformers}},
                   "sklearn.tree.DecisionTreeClassifier"],
        target="good",
    )  # fmt: skip

    page = run(place)

    model = Model.load(place.base / "model", Config())
    assert [one.kind for one in model.handler.schema.columns] == ["text", "number"]
    assert "missing cells</th><td>5<" in page


def test_a_text_model_reads_its_one_column(place):
    texts = "text,label\n" + '"a good, dry wine",1\n"bad wine",0\n' * 6
    place.channel("train", a__csv=texts)
    place.hyperparameters(
        estimator=["sklearn.feature_extraction.text.CountVectorizer",
                   "sklearn.naive_bayes.MultinomialNB"],
        target="label", countvectorizer__ngram_range="[1, 2]",
    )  # fmt: skip

    run(place)

    model = joblib.load(place.base / "model" / "model.joblib")
    assert model.predict(["good dry"]).tolist() == [1]


def test_progress_of_the_fit_is_shown_and_not_kept(place, capfd):
    place.channel("train")
    np.save(place.base / "input/data/train/a.npy", np.column_stack([WINE.data, WINE.target]))
    place.hyperparameters(
        estimator="sklearn.ensemble.GradientBoostingClassifier", target="-1", folds="0",
        n_estimators="5",
    )  # fmt: skip

    run(place)

    assert "Remaining Time" in capfd.readouterr().out
    assert joblib.load(place.base / "model" / "model.joblib").verbose == 0


# ---- what is refused


NAMES = {
    "NearestNeighbors": "did you mean sklearn.neighbors.NearestNeighbors?",
    "sklearn.neighbors.NearestNeighbour": "did you mean sklearn.neighbors.NearestNeighbors?",
    "sklearn.neighbors._unsupervised.NearestNeighbors": "did you mean sklearn.neighbors.Nearest",
    "os.system": "not an estimator of scikit-learn's public API",
    "sklearn.utils.Bunch": "not an estimator of scikit-learn's public API",
    "sklearn.base.BaseEstimator": "not an estimator of scikit-learn's public API",
    "sklearn.svm": "not an estimator of scikit-learn's public API",
}


@pytest.mark.parametrize("name", NAMES)
def test_only_public_estimators_of_scikit_learn_can_be_named(name):
    with pytest.raises(StartError) as caught:
        recipe.build({"estimator": name})

    assert NAMES[name] in str(caught.value)


def test_every_public_estimator_is_found_where_its_documentation_has_it():
    for name, made in sklearn.utils.all_estimators():
        path = next(path for path, found in recipe.public().items() if found is made)
        module = __import__(path.rpartition(".")[0], fromlist=[name])
        assert getattr(module, name) is made


RECIPES = {
    '{"sklearn.svm.SVC": {"c": 1}}': "sklearn.svm.SVC cannot be made",
    "[]": "expected a name such as sklearn.svm.SVC",
    "5": "expected a name such as sklearn.svm.SVC",
    '[["sklearn.svm.SVC"], "os.system"]': "'os.system' is not an estimator",
    '{"sklearn.ensemble.BaggingClassifier": {"estimator": "sklearn.svm.SVX"}}': (
        "did you mean sklearn.svm.SVR?"
    ),
}


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_that_cannot_be_followed_is_named(text):
    with pytest.raises(StartError) as caught:
        recipe.build({"estimator": json.loads(text)})

    assert RECIPES[text] in str(caught.value)


def test_recipes_may_stand_among_parameters():
    made = recipe.build({
        "estimator": {"sklearn.model_selection.GridSearchCV": {
            "estimator": "sklearn.svm.SVC", "param_grid": {"C": [1, 10]}}},
        "cv": 3,
    })  # fmt: skip

    assert (type(made.estimator).__name__, made.param_grid, made.cv) == ("SVC", {"C": [1, 10]}, 3)


ROWS = "a,b,y\n" + "1,2,0\n3,4,1\n5,6,0\n7,8,1\n" * 3
CASES = [
    ({"estimator": "sklearn.svm.SVC", "target": "y", "gama": "1"}, ROWS,
     "SVC has no parameter gama; did you mean gamma"),
    ({"estimator": "sklearn.svm.SVC", "target": "y", "C": "-1"}, ROWS,
     "The 'C' parameter of SVC must be a float in the range (0.0, inf]"),
    ({"estimator": "sklearn.svm.SVC"}, ROWS, "SVC learns a target, and none is given"),
    ({"estimator": "sklearn.semi_supervised.SelfTrainingClassifier", "target": "y"}, ROWS,
     "SelfTrainingClassifier is not complete: give the estimator inside it"),
    ({"estimator": "sklearn.ensemble.VotingClassifier", "target": "y"}, ROWS,
     'beside its name: estimator={"sklearn.ensemble.VotingClassifier": {'),
    ({"estimator": "sklearn.svm.SVC", "target": "y", "folds": "1"}, ROWS, "folds=1; expected"),
    ({"estimator": "sklearn.svm.SVC", "target": "y"}, "a,y\n1,2\n3,2\n",
     "The target y has the single value 2 in all 2 rows"),
    ({"estimator": "sklearn.svm.SVC", "target": "y"}, "a,y\n1,0\n2,1\n3,\n",
     "The target y of channel train is missing in 1 of 3 rows, first in row 3"),
    ({"estimator": "sklearn.svm.SVC", "target": "y"}, "a,y\n1,0\n,1\n3,1\n",
     "put sklearn.impute.SimpleImputer in front"),
    ({"estimator": "sklearn.svm.SVC", "target": "y"}, "a,y\n1,0.5\n2,1.5\n3,0.25\n",
     "The target is a quantity: choose a regressor"),
    ({"estimator": "sklearn.svm.SVC", "target": "y"}, "a,y\nx,0\n2,1\n3,1\n",
     "Column a holds text: encode it in a Pipeline"),
    ({"estimator": "sklearn.svm.SVR", "target": "y"}, "a,y\n1,x\n2,z\n",
     "The target y holds text such as 'x', and a regressor needs numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("hyperparameters", "rows", "sentence"), CASES)
def test_what_cannot_be_fitted_says_what_to_do(place, hyperparameters, rows, sentence):
    place.channel("train", a__csv=rows)
    place.hyperparameters(**hyperparameters)

    assert sentence in run(place, code=1)
    assert not list((place.base / "model").glob("*"))


def test_validation_columns_are_put_in_order_or_named(place, capsys):
    place.channel("train", a__csv=ROWS)
    validation = place.channel("validation", a__csv="y,b,a\n0,2,1\n1,4,3\n")
    place.hyperparameters(estimator="sklearn.tree.DecisionTreeClassifier", target="y")
    run(place)
    assert metrics(capsys.readouterr().out)["validation_accuracy"] == 1.0

    (validation / "a.csv").write_text("y,a,c\n0,2,1\n")

    assert "Missing: b. Unexpected: c." in run(place, code=1)


def test_pipe_mode_is_refused(place):
    place.config("inputdataconfig", {"train": {"TrainingInputMode": "Pipe"}})
    place.hyperparameters(estimator="sklearn.cluster.KMeans")

    assert "Channel train is in Pipe mode; choose File or FastFile" in run(place, code=1)
