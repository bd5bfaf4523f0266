"""The flags of `tintype eval`, apart from what it does: `tintype --help` loads no torch."""

import argparse

PICTURES = "a folder of pictures, a folder that `tintype prepare` made, or a model to sample from"


def add_eval_flags(command: argparse.ArgumentParser) -> None:
    """A command for each thing that can be measured."""
    what = command.add_subparsers(dest="measure", metavar="WHAT", required=True)

    one = what.add_parser("pictures", help="FID, KID, precision, recall, Inception score")
    one.add_argument("pictures", metavar="PICTURES", help=PICTURES)
    one.add_argument(
        "--reference", required=True, help="such a folder, or statistics: what --save-statistics wrote, or .npz"
    )
    _add_extractor(one, required=True)
    one.add_argument("--figures", help="fid,kid,precision_recall,inception_score (default: all that can be told)")
    one.add_argument("--save-statistics", metavar="FILE", help="of the reference, as .safetensors, to be used again")
    one.add_argument("--reservoir", type=int, default=10_000, help="features kept a side, for KID and precision")
    one.add_argument("--kid-subsets", type=int, default=100)
    one.add_argument("--kid-subset-size", type=int, default=1000)
    one.add_argument("--neighbours", type=int, default=3, help="of precision and recall (default: 3)")
    one.add_argument("--splits", type=int, default=10, help="of the Inception score (default: 10)")
    _add_sampling(one)
    _add_common(one)

    one = what.add_parser("pairs", help="PSNR, SSIM, LPIPS of pictures against those they are to repeat")
    one.add_argument("pictures", metavar="PICTURES", help="a folder of pictures, or one that `tintype prepare` made")
    one.add_argument("--reference", required=True, help="such a folder; folders are paired by name")
    _add_lpips(one)
    _add_common(one)

    one = what.add_parser("reconstruction", help="PSNR, SSIM, LPIPS and rFID of an autoencoder")
    one.add_argument("model", metavar="MODEL", help="a model, or an autoencoder in a file or folder of its own")
    one.add_argument("--data", required=True, help="a folder of pictures, or one that `tintype prepare` made")
    _add_lpips(one)
    _add_extractor(one, required=False)
    _add_common(one)

    one = what.add_parser("clip-score", help="whether pictures show what their captions say")
    one.add_argument("pictures", metavar="PICTURES", help=PICTURES)
    one.add_argument("--clip", required=True, help="a CLIP: our file, or a folder of transformers or open_clip")
    _add_sampling(one)
    _add_common(one)

    one = what.add_parser("retrieval", help="how well a CLIP finds the caption of a picture, and the picture of one")
    one.add_argument("clip", metavar="CLIP", help="our file, or a folder of transformers or open_clip")
    one.add_argument("--data", required=True, help="a folder with captions, or one that `tintype prepare` made")
    _add_common(one)

    _add_scenes(what.add_parser("scenes", help="whether a model of emoji scenes draws what it is told"))

    one = what.add_parser("tasks", help="whether it draws what stands in boxes, and what belongs under a mask")
    _add_model(one)
    one.add_argument("--layouts", type=int, default=500, help="held-out layouts of 1 to 4 boxes (default: 500)")
    one.add_argument("--classes", type=int, default=256, help="of the model's, each drawn once (default: 256)")
    one.add_argument("--holes", type=int, default=200, help="held-out scenes with one object masked (default: 200)")
    one.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    one = what.add_parser("upscaling", help="how near enlarged scenes are to what they were made small from")
    _add_model(one, default="upscaler")
    one.add_argument("--count", type=int, default=100, help="held-out scenes of each size (default: 100)")
    one.add_argument("--steps", type=int, help="of sampling (default: the model's)")
    one.add_argument("--tile", type=int, help="work on squares of so many pixels of the small picture")
    one.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_extractor(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--extractor", choices=("inception", "clip", "judge"), required=required, help="judge: ours, of emoji scenes"
    )
    parser.add_argument("--weights", metavar="FILE", help="of the extractor: Inception's, or a CLIP; judge has its own")


def _add_lpips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lpips", action="append", default=[], metavar="FILE", help="weights: VGG16's, and lpips's own vgg.pth"
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--captions", metavar="DATA", help="what a model is told (default: the reference's captions)")
    parser.add_argument("--count", type=int, help="how many pictures a model makes (default: one for each caption)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture a model makes (default: 0)")
    parser.add_argument("--steps", type=int, help="of sampling (default: the model's)")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, help="make all pictures squares of that side: resized, the middle cut out")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at a time (default: 32)")
    parser.add_argument("--out", help="folder of result.json and sheet.png (default: runs/eval/WHAT); goes on there")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_model(parser: argparse.ArgumentParser, *, default: str = "default") -> None:
    parser.add_argument("model", nargs="?", default=default, help="an embedded model's name or a model folder")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--font", help="the Noto Color Emoji font, where it is not found by itself")


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--objects", type=int, default=500, help="held-out (emoji, colour) prompts (default: 500)")
    parser.add_argument(
        "--pairs", type=int, default=200, help="held-out two-object prompts, and seen one-object prompts (default: 200)"
    )
    parser.add_argument("--sheet", metavar="PNG", help="also draw the sheet of 64 prompts")
    parser.add_argument("--judge", metavar="FILE", help="a scene_classifier's weights instead of the embedded ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
