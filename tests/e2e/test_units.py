"""The systemd units: sound, and guests do not start without a settled volume. (Nothing is started here.)"""

import glob
import os
import re
import shutil

from lib.nodes import ROOT
from lib.runner import Skip, case
from lib.scratch import run

GUESTS = ["libvirtd", "virtqemud", "libvirt-guests", "xendomains", "pve-guests", "pve-ha-lrm"]


def words(unit, key):
    with open(os.path.join(ROOT, "packaging/systemd", unit), encoding="utf-8") as file:
        return set(" ".join(re.findall(rf"^{key}=(.*)$", file.read(), re.MULTILINE)).split())


@case()
def guests_wait_and_the_boot_does_not(scratch):
    if not shutil.which("systemd-analyze") or not shutil.which("systemctl"):
        raise Skip("there is no systemd here")
    root = scratch / "root"
    units = os.path.join(root, "etc/systemd/system")
    os.makedirs(units)
    for name in ("vmfs@.service", "vmfs-ready@.service"):
        shutil.copy(os.path.join(ROOT, "packaging/systemd", name), units)
    # One that starts guests, and is installed.
    with open(os.path.join(units, "libvirtd.service"), "w", encoding="utf-8") as file:
        file.write("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    run("systemctl", f"--root={root}", "enable", "vmfs@guests.service", "vmfs-ready@guests.service", "libvirtd.service")
    links = {os.path.relpath(path, units) for path in glob.glob(os.path.join(units, "*/*"))}
    required = {f"{name}.service.requires/vmfs-ready@guests.service" for name in GUESTS}
    assert links == required | {"multi-user.target.wants/vmfs@guests.service",
                                "multi-user.target.wants/libvirtd.service"}, links
    # What is pulled in is ordered as well: without that, guests would start beside it.
    services = {f"{name}.service" for name in GUESTS}
    assert words("vmfs-ready@.service", "Before") == services == words("vmfs-ready@.service", "RequiredBy")
    assert services <= words("vmfs@.service", "Before")
    assert words("vmfs-ready@.service", "Requires") == {"vmfs@%i.service"} == words("vmfs-ready@.service", "After")
    # Instances, as an administrator has them, with the programs that they name.
    for name in ("vmfs@", "vmfs-ready@"):
        with open(os.path.join(units, f"{name}.service"), encoding="utf-8") as file:
            text = file.read().replace("/usr/bin/vmfs", "/bin/true").replace("Documentation=man:vmfs(1)\n", "")
        with open(os.path.join(units, f"{name}guests.service"), "w", encoding="utf-8") as file:
            file.write(text)
    paths = [os.path.join(units, f"{name}.service") for name in ("vmfs@guests", "vmfs-ready@guests", "libvirtd")]
    said = run("systemd-analyze", "verify", "--man=no", *paths).stdout
    ours = [line for line in said.splitlines() if "vmfs" in line or "libvirtd" in line]
    assert not ours, said
