"""The embedded model's second version: text, boxes, classes and a masked picture to 64 x 64 scenes, by one U-Net.

    tintype train default_tasks --out runs/tasks --set start=runs/text2img/model

The recipe of `default_text2img` with scenes of up to four objects, whose boxes are read as tokens beside the caption,
and with the mask and the masked picture beside the noise. `start=MODEL` may be a model without these: what it lacks
begins from nothing. Publishes `runs/tasks/model`. On a GPU: `--set train.device=cuda --set train.precision=bf16 --set
train.batch_size=256 --set train.accumulate=1`.
"""

import dataclasses

from tintype.data.scenes import SceneConfig
from tintype.recipes.default_text2img import DefaultText2Img, default_text2img


def default_tasks() -> DefaultText2Img:
    first = default_text2img()
    return dataclasses.replace(
        first,
        scenes=SceneConfig(grid=8, objects=(0.5, 0.25, 0.125, 0.125), sizes=(0.15, 0.7, 0.15)),
        unet=dataclasses.replace(first.unet, in_channels=2 * first.unet.in_channels + 1),
        objects=4,
        objects_dropout=(0.3, 0.1),
        caption_dropout=0.3,
        repainted=0.35,
        train=dataclasses.replace(first.train, steps=5000, batch_size=16, learning_rate=6e-4, hold=0.2, save_every=250),
    )
