"""What a method is: the three seams of the walk that it may fill, and where it comes from.

Shapes: B windows or pictures; H, W pixels; h, w the grid of the maps; C joint width; Q names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from torch import Tensor

from clip.convnext import ConvNeXt
from clip.model import VisionTransformer
from naclip.walk.attention import Grid
from naclip.walk.gathering import Gathered, Place
from naclip.walk.reading import Reading, Tower, cosine


@dataclass(frozen=True)
class About:
    """Where a method comes from, for tables and records."""

    title: str
    paper: str  # where it was published
    code: str  # the repository and commit that its module was held against
    licence: str  # of that repository; 'none stated' where it has none, 'see there' where it was not looked up
    reads: str  # what it looks at in the tower, in a few words


@dataclass(frozen=True)
class Method:
    """A reading of the image tower. The fields of a subclass are the constants of its paper, and nothing else.

    A subclass gives `features` or `maps`, where its paper asks for it `refine` and `vote`, and `weights` for those who
    look at its attention. It keeps nothing between calls, and what its paper computes for each window or picture it
    computes for each alone, however they are batched.
    """

    name: ClassVar[str]  # default: the class's, in small letters
    about: ClassVar[About | None] = None
    protocol: ClassVar[str] = 'naclip'  # the settings it was published under, in naclip/protocols.py
    pamr: ClassVar[bool] = False  # whether it was published with PAMR after it
    published_on: ClassVar[tuple[str, ...]] = ('ViT-B/16',)  # the towers that its constants and settings are for
    towers: ClassVar[tuple[type, ...]] = (VisionTransformer,)  # the kinds of image tower that it can read
    requires: ClassVar[Mapping[str, str]] = {}  # optional modules it needs: how to import -> how to install
    # Constants that name layers are those of a tower with twelve blocks; here are those of others, by their number.
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {}
    companions: ClassVar[tuple[str, ...]] = ()  # texts it compares with beside the names: further rows of `texts`
    needs_regions: ClassVar[bool] = False  # whether it reads region masks of the pictures, `reading.regions`
    whole: ClassVar[bool] = False  # whether `maps` gets the windows of a whole picture at once, `reading.boxes`

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if 'name' not in cls.__dict__:
            cls.name = cls.__name__.lower()

    def read(self, visual: Tower, windows: Tensor) -> Reading:
        """Stage 4: how windows (B, 3, H, W) enter the tower."""
        return Reading(visual, windows)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        """Stage 5: features that can be compared with `texts` (Q, C): (B, h, w, C), not normalised.

        Raises:
            NotImplementedError: the method makes its maps in another way.
        """
        raise NotImplementedError(f'method {self.name} has no features of patches, only maps')

    def maps(self, reading: Reading, texts: Tensor) -> Tensor:
        """Stage 5: how well each name fits where (B, Q, h, w), float32; as a rule cosines."""
        return cosine(self.features(reading, texts), texts)

    def patch_grid(self, reading: Reading) -> Grid:
        """The grid of the patches that gather, the method's own (h, w)."""
        return reading.grid

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """With which weights the patch at a place gathers from all patches, where it last does so; mean over heads.

        Made of the very terms, or affinities, that `features` uses; what else the method adds to a patch, a residual as
        a rule, does not count. A subclass that has other features has no weights until it gives its own.

        Raises:
            NotImplementedError: the method does not say.
        """
        raise NotImplementedError(f'method {self.name} does not say with which weights its patches gather')

    def refine(self, pictures: Tensor, maps: Tensor, texts: Tensor) -> Tensor:
        """Stage 7: maps of whole pictures (B, Q, H, W), beside the normalised pictures at that size -> same."""
        return maps

    def vote(self, reading: Reading, labels: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        """Stage 9: labels of one whole picture (1, 1, H, W) -> same.

        `reading` is the picture's, `maps` (1, Q, H, W) are those after stage 7, `query_idx` (Q,) has each name's class.
        """
        return labels

    def settle(self, pictures: Tensor, maps: Tensor, query_idx: Tensor) -> Tensor:
        """Stage 6, once windows are merged, at the network's size: maps (B, Q, H, W) -> (B, Q or K, H, W).

        `pictures` (B, 3, H, W) are the network's input, `query_idx` (Q,) has each name's class. A method whose paper
        merges names here, or spreads maps over pixels, returns maps of classes; these go on to their target size.
        """
        return maps

    def vote_regions(self, regions: Tensor, labels: Tensor) -> Tensor:
        """Stage 9, for methods that need regions: labels of a picture (1, 1, H, W) and its mask (H, W) -> labels."""
        return labels

    @property
    def second_tower(self) -> str | None:
        """The name or file of the guide that it reads, its constant `guide`; None without one."""
        return getattr(self, 'guide', None)

    @property
    def settles(self) -> bool:
        """Whether it changes maps before they go to their target size."""
        return type(self).settle is not Method.settle

    @property
    def has_weights(self) -> bool:
        """Whether it says with which weights its patches gather, of the features that it has."""
        given = next(kind for kind in type(self).__mro__ if not vars(kind).keys().isdisjoint(_GATHERS))
        return given is not Method and 'weights' in vars(given)

    @property
    def refines(self) -> bool:
        """Whether stage 7 is the method's."""
        return type(self).refine is not Method.refine

    @property
    def votes(self) -> bool:
        """Whether stage 9 is the method's: then it reads whole pictures."""
        return type(self).vote is not Method.vote

    @property
    def constants(self) -> dict[str, object]:
        """All that its numbers depend on, by name."""
        return asdict(self)

    @classmethod
    def constant_names(cls) -> list[str]:
        """The names of its constants."""
        return [field.name for field in fields(cls)]


BOTH_TOWERS = (VisionTransformer, ConvNeXt)
_GATHERS = ('weights', 'tokens', 'features', 'maps')  # whoever gives one of these anew gives the first anew
