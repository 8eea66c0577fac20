"""Each tool's own quantiser on the same calibration data; results are kept in a folder."""

import os
import pathlib
import subprocess

import numpy as np

# Batches of one sample that every quantiser calibrates on.
SAMPLES = 8


class Files:
    """Quantised versions of a model, made when first asked for."""

    def __init__(self, model, folder):
        self.model, self.folder = model, pathlib.Path(folder)

    def samples(self):
        import peers_models

        return [peers_models.feed(self.model, 1, seed) for seed in range(1, SAMPLES + 1)]

    def onnxruntime(self):
        """QDQ, u8 activations, s8 weights per channel, after its own preparation."""
        path = self.folder / f"{self.model.name}.ort-int8.onnx"
        if path.exists():
            return path
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
        from onnxruntime.quantization import quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        samples = iter(self.samples())

        class Reader(CalibrationDataReader):
            def get_next(self):
                return next(samples, None)

        prepared = self.folder / f"{self.model.name}.prepared.onnx"
        quant_pre_process(str(self.model.path), str(prepared), skip_symbolic_shape=True)
        quantize_static(str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8)
        prepared.unlink()
        return path

    def openvino(self):
        """NNCF's post-training quantisation."""
        path = self.folder / f"{self.model.name}.nncf-int8.xml"
        if path.exists():
            return path
        import nncf
        import openvino

        model = openvino.Core().read_model(str(self.model.path))
        kind = {"model_type": nncf.ModelType.TRANSFORMER} if "input_ids" in self.samples()[0] else {}
        data = nncf.Dataset(self.samples())
        openvino.save_model(nncf.quantize(model, data, subset_size=SAMPLES, **kind), path,
                            compress_to_fp16=False)
        return path

    def lepton_bf16(self):
        """Lepton's `bf16`."""
        path = self.folder / f"{self.model.name}.bf16.lepton"
        if not path.exists():
            quantise("bf16", self.model.path, path)
        return path

    def lepton(self):
        """Lepton's `static-int8`."""
        path = self.folder / f"{self.model.name}.lepton"
        if path.exists():
            return path
        stack = self.folder / f"{self.model.name}.calibration.npz"
        arrays = {}
        for i, sample in enumerate(self.samples()):
            arrays |= {f"{i}/{name}": array for name, array in sample.items()}
        np.savez(stack, **arrays)
        quantise("static-int8", self.model.path, path, stack)
        return path


def quantise(*arguments):
    """Calls Lepton's tool of that name."""
    tool = pathlib.Path(os.environ["LEPTON_RELEASE"]) / "examples/quantise"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
