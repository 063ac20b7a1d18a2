"""The bundle as an MLflow model: MLflow keeps a copy of this file beside the bundle and runs it to load that."""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from imgrec_cli import Classifier


class BundleModel(PythonModel):
    """Encoded images (the bytes of a JPEG, PNG…) → answers, as `imgrec predict --format json` gives them."""

    def load_context(self, context: PythonModelContext) -> None:
        self._classifier = Classifier.load(context.artifacts["bundle"])

    def predict(
        self, context: PythonModelContext, model_input: list[bytes], params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer for each image, in order. Raises BadImageError for one that cannot be read."""
        return [self._classifier.predict(image).as_dict() for image in model_input]


set_model(BundleModel())
