"""Models of scikit-learn, XGBoost and LightGBM on tables and texts, exported as their converters do.

Rows of benches/real_models.py. Every model is fed 40 rows that it was not trained on.
"""

import numpy as np

ROWS = 40
TRAINED = 200
WORDS = ("the cat sat on a mat while dogs ran in rain and birds sang over old hills near quiet "
         "rivers where boats drift").split()


def table(rng, rows):
    return rng.standard_normal((rows, 8)).astype(np.float32)


def texts(rng, rows):
    return np.array([" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(rows)])


def labels(x, classes, words=False):
    numbers = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0) * (classes > 2)
    return np.array(["no", "maybe", "yes"])[numbers] if words else numbers


def keep(path, model, feed):
    path.write_bytes(model.SerializeToString())
    np.savez(path.with_suffix(".npz"), **feed)


def lists_for_arrays():
    """Lets exporters write arrays and truth values as attributes, which the newest `onnx` refuses."""
    import onnx.helper

    make = onnx.helper.make_attribute
    number = lambda value: int(value) if isinstance(value, (bool, np.bool_)) else value
    is_list = lambda value: isinstance(value, list) or isinstance(value, np.ndarray) and value.ndim == 1
    as_list = lambda value: [number(v) for v in np.asarray(value).tolist()] if is_list(value) else value
    onnx.helper.make_attribute = lambda key, value, *rest, **more: make(key, as_list(value), *rest, **more)


def made(build, kind=None, classes=3, words=False, zipmap=False):
    """A maker: `kind` is None for classes, "number" for regressions."""
    def make(path, _exporter):
        from skl2onnx import to_onnx

        rng = np.random.default_rng(0)
        x = table(rng, TRAINED)
        y = x[:, 0] * 2 + x[:, 1] if kind == "number" else labels(x, classes, words)
        model = build().fit(x, y)
        options = {} if kind or zipmap else {id(model): {"zipmap": False}}
        keep(path, to_onnx(model, x[:5], options=options, target_opset={"": 18, "ai.onnx.ml": 3}),
             {"X": table(rng, ROWS)})
    return make


def without_labels(build):
    def make(path, _exporter):
        from skl2onnx import to_onnx

        rng = np.random.default_rng(0)
        x = table(rng, TRAINED)
        keep(path, to_onnx(build().fit(x), x[:5], target_opset={"": 18, "ai.onnx.ml": 3}), {"X": table(rng, ROWS)})
    return make


def boosted(build, converter, classes=2, number=False, words=False):
    """A maker for XGBoost or LightGBM, through onnxmltools."""
    def make(path, _exporter):
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType

        rng = np.random.default_rng(0)
        x = table(rng, TRAINED)
        y = x[:, 0] * 2 + x[:, 1] if number else labels(x, classes, words)
        model = build().fit(x, y)
        convert = getattr(onnxmltools, converter)
        more = {"zipmap": False} if converter == "convert_lightgbm" and not number else {}
        onnx = convert(model, initial_types=[("X", FloatTensorType([None, 8]))], target_opset=15, **more)
        keep(path, onnx, {"X": table(rng, ROWS)})
    return make


def text_classifier(path, _exporter):
    import sklearn.feature_extraction.text as features
    import sklearn.linear_model as linear
    import sklearn.pipeline as pipeline
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    rng = np.random.default_rng(0)
    x = texts(rng, TRAINED)
    y = np.where([("cat" in line) for line in x], "cat", "none")
    model = pipeline.make_pipeline(features.TfidfVectorizer(ngram_range=(1, 2), stop_words=["the", "a"]),
                                   linear.LogisticRegression()).fit(x, y)
    onnx = to_onnx(model, initial_types=[("X", StringTensorType([None, 1]))],
                   options={id(model): {"zipmap": False}, features.TfidfVectorizer: {"locale": "C"}}, target_opset=18)
    keep(path, onnx, {"X": texts(rng, ROWS).reshape(-1, 1)})


def mixed_columns(path, _exporter):
    import sklearn.compose as compose
    import sklearn.linear_model as linear
    import sklearn.pipeline as pipeline
    import sklearn.preprocessing as preprocessing
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    import pandas

    rng = np.random.default_rng(0)
    frame = lambda rows: pandas.DataFrame({"n": rng.standard_normal(rows).astype(np.float32),
                                           "c": rng.choice(["red", "green", "blue"], rows)})
    x, rest = frame(TRAINED), frame(ROWS)
    columns = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["n"]),
                                         ("c", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["c"])])
    model = pipeline.make_pipeline(columns, linear.LogisticRegression())
    model.fit(x, np.where(x.c == "red", "stop", "go"))
    onnx = to_onnx(model, initial_types=[("n", FloatTensorType([None, 1])), ("c", StringTensorType([None, 1]))],
                   options={id(model): {"zipmap": False}}, target_opset=18)
    keep(path, onnx, {"n": rest[["n"]].to_numpy(), "c": rest.c.to_numpy().astype(str).reshape(-1, 1)})


def classical():
    """Name, exporter and maker."""
    lists_for_arrays()
    import sklearn.ensemble as ensemble
    import sklearn.linear_model as linear
    import sklearn.naive_bayes as bayes
    import sklearn.neighbors as neighbors
    import sklearn.neural_network as network
    import sklearn.pipeline as pipeline
    import sklearn.preprocessing as preprocessing
    import sklearn.svm as svm
    import sklearn.tree as tree

    scaled = lambda model: lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), model())
    rows = {
        "RandomForestClassifier": made(lambda: ensemble.RandomForestClassifier(20, random_state=0)),
        "RandomForestClassifier, string labels": made(
            lambda: ensemble.RandomForestClassifier(20, random_state=0), words=True, zipmap=True),
        "GradientBoostingClassifier": made(lambda: ensemble.GradientBoostingClassifier(n_estimators=20)),
        "GradientBoostingClassifier, two classes": made(
            lambda: ensemble.GradientBoostingClassifier(n_estimators=20), classes=2),
        "HistGradientBoostingClassifier": made(lambda: ensemble.HistGradientBoostingClassifier(max_iter=20)),
        "HistGradientBoostingClassifier, two classes": made(
            lambda: ensemble.HistGradientBoostingClassifier(max_iter=20), classes=2, words=True),
        "HistGradientBoostingRegressor": made(lambda: ensemble.HistGradientBoostingRegressor(max_iter=20), "number"),
        "ExtraTreesRegressor": made(lambda: ensemble.ExtraTreesRegressor(20, random_state=0), "number"),
        "AdaBoostClassifier": made(lambda: ensemble.AdaBoostClassifier(n_estimators=10)),
        "IsolationForest": without_labels(lambda: ensemble.IsolationForest(n_estimators=20, random_state=0)),
        "DecisionTreeClassifier": made(lambda: tree.DecisionTreeClassifier()),
        "LogisticRegression, scaled": made(scaled(linear.LogisticRegression)),
        "LogisticRegression, string labels": made(linear.LogisticRegression, words=True, zipmap=True),
        "LogisticRegression, two classes": made(linear.LogisticRegression, classes=2, words=True),
        "LinearRegression": made(linear.LinearRegression, "number"),
        "LinearSVC": made(svm.LinearSVC, words=True, zipmap=True),
        "LinearSVC, two classes": made(svm.LinearSVC, classes=2, zipmap=True),
        "SVC": made(lambda: svm.SVC(probability=True)),
        "SVC, string labels": made(lambda: svm.SVC(kernel="poly", probability=True), words=True),
        "SVC, two classes": made(lambda: svm.SVC(probability=True), classes=2),
        "SVC, decisions": made(lambda: svm.SVC(kernel="sigmoid")),
        "SVC, decisions of two classes": made(lambda: svm.SVC(kernel="linear"), classes=2),
        "NuSVC": made(lambda: svm.NuSVC(nu=0.2, probability=True), words=True),
        "SVR": made(svm.SVR, "number"),
        "NuSVR": made(lambda: svm.NuSVR(kernel="poly"), "number"),
        "LinearSVR": made(svm.LinearSVR, "number"),
        "OneClassSVM": without_labels(svm.OneClassSVM),
        "MLPClassifier": made(lambda: network.MLPClassifier(max_iter=30)),
        "GaussianNB": made(bayes.GaussianNB),
        "KNeighborsClassifier": made(neighbors.KNeighborsClassifier),
        "MinMaxScaler + MLPRegressor": made(lambda: pipeline.make_pipeline(
            preprocessing.MinMaxScaler(), network.MLPRegressor(max_iter=30)), "number"),
        "TfidfVectorizer + LogisticRegression": text_classifier,
        "columns of numbers and words": mixed_columns,
    }
    made_rows = [(name, "skl2onnx", make) for name, make in rows.items()]
    return made_rows + boosting()


def boosting():
    import lightgbm
    import xgboost

    forest = dict(n_estimators=20, max_depth=4)
    quiet = dict(forest, verbose=-1)
    rows = {
        "XGBClassifier, two classes": boosted(lambda: xgboost.XGBClassifier(**forest), "convert_xgboost"),
        "XGBClassifier": boosted(lambda: xgboost.XGBClassifier(**forest), "convert_xgboost", 3),
        "XGBRegressor": boosted(lambda: xgboost.XGBRegressor(**forest), "convert_xgboost", number=True),
        "LGBMClassifier, two classes": boosted(lambda: lightgbm.LGBMClassifier(**quiet), "convert_lightgbm"),
        "LGBMClassifier": boosted(lambda: lightgbm.LGBMClassifier(**quiet), "convert_lightgbm", 3, words=True),
        "LGBMRegressor": boosted(lambda: lightgbm.LGBMRegressor(**quiet), "convert_lightgbm", number=True),
    }
    return [(name, "onnxmltools", make) for name, make in rows.items()]
