"""Every data set's native layout in small: frames of the made-up city with its true poses, and the
quirks of each format."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
from oracle import City, drive
from PIL import Image

from scal3r_ros import rigid

FISHEYE = (np.array([[50.0, 0, 42.0], [0, 50.0, 28.0], [0, 0, 1]]), np.array([0.05, -0.01, 0, 0]))
T_BODY_CAMERA = rigid.from_parts(
    rigid.rotation_matrix(np.array([0.5, -0.5, 0.5, -0.5])), np.array([0.1, -0.2, 0.3])
)
"""Where some rigs carry their camera."""
FRAMES = 12
WIDTH, HEIGHT, FOCAL = 80, 60, 48.0
CX, CY = WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5
"""Principal point where the first pixel's centre is (0, 0)."""
ENLARGED = 8
"""Of Kinects, whose intrinsics are those of 640 x 480, every pixel is so many wide."""


def small_city(frames: int = FRAMES) -> City:
    """Around the first corner."""
    whole = drive(frames=500, length=400.0, route="EENN")
    poses = whole.T_world_camera[230 : 230 + 2 * frames : 2]
    return City(poses, whole.block, WIDTH, HEIGHT, FOCAL)


def true_depth(city: City) -> np.ndarray:
    return city.render(np.arange(len(city)))[0]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def save_depth(path: Path, depth: np.ndarray, per_metre: float, none: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits = np.isfinite(depth) & (np.nan_to_num(depth) * per_metre < 65534)
    raw = np.where(fits, np.nan_to_num(depth) * per_metre, none)
    cv2.imwrite(str(path), raw.round().astype(np.uint16))


def write(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def row(*values) -> str:
    return " ".join(f"{value:.17g}" for value in np.concatenate([np.ravel(v) for v in values]))


def tum_row(seconds: float, T: np.ndarray) -> str:
    return f"{seconds:.9f} {row(T[:3, 3], rigid.quaternion(T[:3, :3]))}"


def pictures(city: City) -> np.ndarray:
    return city.render(np.arange(len(city)))[1]


def kitti(root: Path, city: City) -> str:
    folder = root / "sequences/00"
    for i, image in enumerate(pictures(city)):
        save(folder / f"image_2/{i:06d}.png", image)
    focal = [city.focal, 0, CX, 0, 0, city.focal, CY, 0, 0, 0, 1, 0]
    write(folder / "calib.txt", [f"P{n}: {row(focal)}" for n in range(4)] + ["Tr: " + row(focal)])
    write(folder / "times.txt", [f"{0.1 * i:e}" for i in range(len(city))])
    first = rigid.inverse(city.T_world_camera[0])
    write(root / "poses/00.txt", [row((first @ T)[:3]) for T in city.T_world_camera])
    return "00"


def vkitti2(root: Path, city: City) -> str:
    """World-to-camera with a header, two cameras in one file, centimetres, sky as 65535."""
    variant = root / "Scene01/clone"
    for i, (image, depth) in enumerate(zip(pictures(city), true_depth(city))):
        save(variant / f"frames/rgb/Camera_0/rgb_{i:05d}.jpg", image)
        save_depth(variant / f"frames/depth/Camera_0/depth_{i:05d}.png", depth, 100.0, 65535)
    outside, inside = ["frame cameraID r1,1 ..."], ["frame cameraID K[0,0] ..."]
    for i, T in enumerate(city.T_world_camera):
        outside += [f"{i} {n} {row(rigid.inverse(T))}" for n in (0, 1)]
        inside += [f"{i} {n} {row([city.focal, city.focal, CX, CY])}" for n in (0, 1)]
    write(variant / "extrinsic.txt", outside)
    write(variant / "intrinsic.txt", inside)
    return "Scene01/clone"


def tum(root: Path, city: City) -> str:
    folder = root / "rgbd_dataset_freiburg3_city"
    start, truth = 1305031452.0, ["# ground truth"]
    for kind in ("rgb", "depth"):
        names = [
            f"{start + 0.1 * i:.6f} {kind}/{start + 0.1 * i:.6f}.png" for i in range(len(city))
        ]
        write(folder / f"{kind}.txt", ["# timestamp filename", *names])
    for i, (image, depth) in enumerate(zip(pictures(city), true_depth(city))):
        save(folder / f"rgb/{start + 0.1 * i:.6f}.png", enlarged(image))
        save_depth(folder / f"depth/{start + 0.1 * i:.6f}.png", enlarged(depth), 5000.0, 0)
        truth.append(tum_row(start + 0.1 * i + 0.004, city.T_world_camera[i]))
    write(folder / "groundtruth.txt", truth)
    return folder.name


def seven_scenes(root: Path, city: City) -> str:
    """Rotations that are slightly off, and 65535 where nothing was measured."""
    folder = root / "chess/seq-03"
    for i, (image, depth) in enumerate(zip(pictures(city), true_depth(city))):
        name = f"frame-{5 * i:06d}"
        save(folder / f"{name}.color.png", enlarged(image))
        save_depth(folder / f"{name}.depth.png", enlarged(depth), 1000.0, 65535)
        for extra in range(1, 5):  # between those that the protocol takes
            save(folder / f"frame-{5 * i + extra:06d}.color.png", image[:1])
        T = city.T_world_camera[i].copy()
        T[:3, :3] *= 1 + 1e-5
        write(folder / f"{name}.pose.txt", [row(r) for r in T])
    write(root / "chess/TestSplit.txt", ["sequence3"])
    (root / "chess/seq-01").mkdir()
    return "chess/seq-03"


def scannet(root: Path, city: City) -> str:
    """Numbers without zeros in front, and a pose of -inf for the last frame."""
    folder = root / "scene0707_00"
    for i, (image, depth) in enumerate(zip(pictures(city), true_depth(city))):
        save(folder / f"color/{3 * i}.jpg", image)
        save_depth(folder / f"depth/{3 * i}.png", depth, 1000.0, 0)
        T = city.T_world_camera[i] if i < len(city) - 1 else np.full((4, 4), -np.inf)
        write(folder / f"pose/{3 * i}.txt", [row(r) for r in T])
        for extra in (1, 2):
            save(folder / f"color/{3 * i + extra}.jpg", image)
    K = np.eye(4)
    K[:2, :3] = [[city.focal, 0, CX], [0, city.focal, CY]]
    for kind in ("color", "depth"):
        write(folder / f"intrinsic/intrinsic_{kind}.txt", [row(r) for r in K])
    return "scene0707_00"


def eth3d(root: Path, city: City) -> str:
    """COLMAP's text, world to camera, a line of points after each image; depth called JPG."""
    folder, lines = root / "courtyard", ["# Image list"]
    for i, (image, depth) in enumerate(zip(pictures(city), true_depth(city))):
        name = f"DSC_{286 + i:04d}.JPG"
        path = folder / f"images/dslr_images_undistorted/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, "jpeg", quality=95)
        raw = folder / f"ground_truth_depth/dslr_images_undistorted/{name}"
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(np.where(np.isfinite(depth), depth, np.inf).astype(np.float32).tobytes())
        T = rigid.inverse(city.T_world_camera[i])
        turn = np.roll(rigid.quaternion(T[:3, :3]), 1)
        lines += [f"{i} {row(turn, T[:3, 3])} 0 dslr_images_undistorted/{name}", "1.5 2.5 -1"]
    write(folder / "dslr_calibration_undistorted/images.txt", lines)
    camera = f"0 PINHOLE {WIDTH} {HEIGHT} {row([city.focal, city.focal, WIDTH / 2, HEIGHT / 2])}"
    write(folder / "dslr_calibration_undistorted/cameras.txt", ["# Camera list", camera])
    return "courtyard"


def euroc(root: Path, city: City) -> str:
    """Grey images; the truth is of the body, scalar first, at its own times."""
    camera = root / "V1_01_easy/mav0/cam0"
    stamps = [1403715273262142976 + 100_000_000 * i for i in range(len(city))]
    for stamp, image in zip(stamps, pictures(city)):
        save(camera / f"data/{stamp}.png", image[..., 1])
    write(camera / "data.csv", ["#timestamp [ns],filename", *(f"{s},{s}.png" for s in stamps)])
    sensor = [
        "sensor_type: camera", "T_BS:", "  cols: 4", "  rows: 4",
        f"  data: [{', '.join(f'{v:.17g}' for v in T_BODY_CAMERA.ravel())}]",
        f"resolution: [{WIDTH}, {HEIGHT}]", "camera_model: pinhole",
        f"intrinsics: [{city.focal}, {city.focal}, {CX}, {CY}]",
        "distortion_model: radial-tangential", "distortion_coefficients: [0.0, 0.0, 0.0, 0.0]",
    ]  # fmt: skip
    write(camera / "sensor.yaml", sensor)
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], ..."]
    for stamp, T in zip(stamps, city.T_world_camera):
        T_world_body = T @ rigid.inverse(T_BODY_CAMERA)
        turn = np.roll(rigid.quaternion(T_world_body[:3, :3]), 1)
        values = [*T_world_body[:3, 3], *turn, *np.zeros(9)]
        rows.append(f"{stamp + 3_000_000}," + ",".join(f"{v:.17g}" for v in values))
    write(root / "V1_01_easy/mav0/state_groundtruth_estimate0/data.csv", rows)
    return "V1_01_easy"


def vbr(root: Path, city: City) -> str:
    """As the devkit converts it; the truth is of the LIDAR."""
    folder = root / "campus/campus_train0"
    stamps = [f"{1_690_000_000 + 0.1 * i:.9f}" for i in range(len(city))]
    for i, image in enumerate(pictures(city)):
        save(folder / f"camera_left/data/{i:010d}.png", image)
    write(folder / "camera_left/timestamps.txt", stamps)
    T_body_lidar = rigid.from_parts(np.eye(3), np.array([0.0, 0.3, -0.5]))
    T_lidar_camera = rigid.inverse(T_body_lidar) @ T_BODY_CAMERA
    poses = city.T_world_camera @ rigid.inverse(T_lidar_camera)
    write(folder / "campus_train0_gt.txt", [tum_row(float(s), T) for s, T in zip(stamps, poses)])
    yaml = []
    for name, T in (("cam_l", T_BODY_CAMERA), ("lidar", T_body_lidar)):
        yaml += [f"{name}:", "  T_b:"]
        yaml += [f"    - [{', '.join(f'{v:.17g}' for v in r)}]" for r in T]
        if name == "cam_l":
            yaml.append(f"  intrinsics: [{city.focal}, {city.focal}, {CX}, {CY}]")
            yaml.append("  distortion_coeffs: [0.0, 0.0, 0.0, 0.0]")
    write(folder / "vbr_calib.yaml", yaml)
    return "campus_train0"


def seen_along(rays: np.ndarray) -> np.ndarray:
    """A smooth picture (H, W, 3) uint8 of what lies along rays (H, W, 2), x and y at depth one."""
    waves = (np.sin(4 * rays[..., 0]), np.cos(5 * rays[..., 1]), np.sin(3 * rays.sum(axis=-1)))
    return np.stack([127 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)


def fisheye_image() -> np.ndarray:
    """What a fisheye lens of `FISHEYE` sees of it."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    points = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    return seen_along(cv2.fisheye.undistortPoints(points, *FISHEYE).reshape(HEIGHT, WIDTH, 2))


def enlarged(image: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(image, ENLARGED, axis=0), ENLARGED, axis=1)


def oxford_spires(root: Path, city: City) -> str:
    """Fisheye images in an archive; the truth is of the base and does not cover the first one."""
    folder = root / "sequences/2024-03-12-keble-college-02"
    start = 1710255840.0
    (folder / "raw").mkdir(parents=True)
    with zipfile.ZipFile(folder / "raw/images.zip", "w") as archive:
        for i in range(len(city)):
            buffer = io.BytesIO()
            Image.fromarray(fisheye_image()).save(buffer, "jpeg", quality=95)
            archive.writestr(f"images/cam0/{start + 0.05 * i:.6f}.jpg", buffer.getvalue())
    T_cam_lidar = rigid.inverse(T_BODY_CAMERA)
    T_base_lidar = rigid.from_parts(np.diag([-1.0, -1, 1]), np.array([0, 0, 0.124]))
    T_base_camera = T_base_lidar @ rigid.inverse(T_cam_lidar)
    poses = city.T_world_camera @ rigid.inverse(T_base_camera)
    rows = [tum_row(start + 0.05 * i, T) for i, T in enumerate(poses)][1:]
    write(folder / "processed/trajectory/gt-tum.txt", rows)
    K, lens = FISHEYE
    write(root / "calibration/cam0.yaml", [
        "camera_matrix:", f"  data: [{', '.join(map(str, K.ravel()))}]",
        "distortion_coefficients:", f"  data: [{', '.join(map(str, lens))}]",
    ])  # fmt: skip
    rows = [f"    - [{', '.join(f'{v:.17g}' for v in r)}]" for r in T_cam_lidar]
    write(root / "calibration/cam-lidar-imu.yaml", ["cam0:", "  T_cam_lidar:", *rows])
    return folder.name


WRITERS = {
    "kitti": kitti, "vkitti2": vkitti2, "tum": tum, "7scenes": seven_scenes, "scannet": scannet,
    "eth3d": eth3d, "euroc": euroc, "vbr": vbr, "oxford-spires": oxford_spires,
}  # fmt: skip
TRUTH = {
    "kitti": "poses/00.txt", "vkitti2": "Scene01/clone/extrinsic.txt",
    "tum": "rgbd_dataset_freiburg3_city/groundtruth.txt",
    "7scenes": "chess/seq-03/frame-000000.pose.txt", "scannet": "scene0707_00/pose/0.txt",
    "eth3d": "courtyard/dslr_calibration_undistorted/images.txt",
    "euroc": "V1_01_easy/mav0/state_groundtruth_estimate0/data.csv",
    "vbr": "campus/campus_train0/campus_train0_gt.txt",
    "oxford-spires": "sequences/2024-03-12-keble-college-02/processed/trajectory/gt-tum.txt",
}  # fmt: skip
"""Where the truth lies."""
