"""All data sets by the name of the command line."""

from scal3r_ros.benchmarks.datasets.dataset import Dataset
from scal3r_ros.benchmarks.datasets.eth3d import ETH3D
from scal3r_ros.benchmarks.datasets.euroc import EUROC
from scal3r_ros.benchmarks.datasets.kitti import KITTI
from scal3r_ros.benchmarks.datasets.oxford_spires import OXFORD_SPIRES
from scal3r_ros.benchmarks.datasets.scannet import SCANNET
from scal3r_ros.benchmarks.datasets.seven_scenes import SEVEN_SCENES
from scal3r_ros.benchmarks.datasets.tum import TUM
from scal3r_ros.benchmarks.datasets.vbr import VBR
from scal3r_ros.benchmarks.datasets.vkitti2 import VKITTI2

DATASETS: dict[str, Dataset] = {
    item.name: item
    for item in (KITTI, VKITTI2, OXFORD_SPIRES, ETH3D, TUM, SEVEN_SCENES, SCANNET, VBR, EUROC)
}
