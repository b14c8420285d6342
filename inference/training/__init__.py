"""How the depth network `relief` is made: our own scenes, our own training.

Place in the flow: nothing here is part of the wheel. `train.py` starts render
processes (`stream.py` over `render.py`) that fill a replay pool, `trainer.py`
fits the network (`network.py`, `losses.py`) and `export.py` writes the ONNX
file that `inference/depth/relief.py` runs. torch and numba are needed here only.
"""
