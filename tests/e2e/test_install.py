"""`make install`: the files in their places, and programs built against the library as users do."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import program
import tap

BUILD = os.environ["DURE_BUILD_DIR"]
MODEL = program.model("deepseek_v3_yarn")


def cached(name):
    """The value of a CMake variable of the build."""
    found = re.search(rf"^{name}:\w+=(.*)$", program.read(BUILD, "CMakeCache.txt"), re.MULTILINE)
    return found.group(1) if found else ""


def run(*words, **environment):
    done = subprocess.run(list(map(str, words)), capture_output=True, timeout=300,
                          env={**os.environ, **environment})
    if done.returncode != 0:
        raise AssertionError(f"{words}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    return done.stdout.decode("utf-8", "replace")


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.top)
        run("cmake", "--install", BUILD, "--prefix", "/pre fix", DESTDIR=cls.top)
        cls.prefix = os.path.join(cls.top, "pre fix")
        cls.libdir = os.path.join(cls.prefix, cached("CMAKE_INSTALL_LIBDIR") or "lib")

    def pkg_config(self, *words):
        # Found relative to the .pc file, so that the tree works wherever it is moved.
        out = run("pkg-config", *words, "dure", PKG_CONFIG_PATH=self.libdir + "/pkgconfig")
        return [word.replace("\\ ", " ") for word in re.split(r"(?<!\\)\s+", out.strip()) if word]

    def build(self, name, *more, flags=("--cflags", "--libs")):
        sanitize = cached("DURE_SANITIZE")
        path = os.path.join(self.top, name)
        run(cached("CMAKE_C_COMPILER"), "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
            os.path.join(program.SOURCE, "examples", name + ".c"), "-o", path, *more,
            *self.pkg_config(*flags), *([f"-fsanitize={sanitize}"] if sanitize else []))
        return path

    def greedy(self, path):
        """The example's tokens and text are those of `dure run`."""
        out = run(path, MODEL, "abc", "12", LD_LIBRARY_PATH=self.libdir)
        value = program.run("run", MODEL, "--raw", "-p", "abc", "-n", "12", "--temp", "0",
                            "--json").json
        self.assertEqual([int(word) for word in out.split("\n")[0].split()], value["tokens"])
        self.assertTrue(out.endswith("\n"))

    def test_files(self):
        found = {os.path.relpath(os.path.join(folder, name), self.prefix)
                 for folder, _, names in os.walk(self.prefix) for name in names}
        lib = os.path.relpath(self.libdir, self.prefix)
        for name in ("bin/dure", "include/dure/dure.h", f"{lib}/libdure.a", f"{lib}/libdure.so",
                     f"{lib}/libdure.so.0", f"{lib}/pkgconfig/dure.pc", "share/man/man1/dure.1",
                     "share/bash-completion/completions/dure", "share/zsh/site-functions/_dure",
                     "share/fish/vendor_completions.d/dure.fish"):
            self.assertIn(name, found)
        for name in ("share/man/man1/dure.1", "share/bash-completion/completions/dure"):
            form = "man" if "man" in name else "bash"
            self.assertEqual(program.read(self.prefix, name),
                             program.run("help", "--as", form).out)
        if os.path.exists(os.path.join(program.SOURCE, "models/dure-tiny.gguf")):
            self.assertIn("share/dure/dure-tiny.gguf", found)

    def test_program_runs_where_it_was_installed(self):
        installed = os.path.join(self.prefix, "bin/dure")
        self.assertEqual(run(installed, "version"), program.run("version").out)

    def test_header_stands_alone(self):
        header = os.path.join(self.prefix, "include/dure/dure.h")
        run(cached("CMAKE_C_COMPILER"), "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror",
            "-fsyntax-only", "-x", "c", header)
        if shutil.which("g++"):
            run("g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++",
                header)

    def test_library_shows_its_interface_and_nothing_else(self):
        header = program.read(self.prefix, "include/dure/dure.h")
        declared = set(re.findall(r"^DURE_API[^;(]*?\b(dure_\w+)\(", header, re.MULTILINE))
        defined = {line.split()[-1] for line in
                   run("nm", "-D", "--defined-only", self.libdir + "/libdure.so").splitlines()}
        self.assertEqual({name for name in defined if name.startswith(("dure_", "du_"))}, declared)
        self.assertGreater(len(declared), 15)

    def test_example_with_the_shared_library(self):
        path = self.build("greedy")
        self.assertIn("libdure.so.0", run("readelf", "-d", path))
        self.greedy(path)

    def test_example_with_the_static_library(self):
        path = self.build("greedy", self.libdir + "/libdure.a", "-Wl,--as-needed",
                          flags=("--static", "--cflags", "--libs"))
        self.assertNotIn("libdure.so", run("readelf", "-d", path))
        self.greedy(path)

    def test_chat_example(self):
        path = self.build("chat")
        done = subprocess.run([path, MODEL], capture_output=True, timeout=100, check=True,
                              env={**os.environ, "LD_LIBRARY_PATH": self.libdir})
        self.assertGreater(len(done.stdout + done.stderr), 100)
        done = subprocess.run([path, "/nowhere"], capture_output=True, timeout=100,
                              env={**os.environ, "LD_LIBRARY_PATH": self.libdir})
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"chat: /nowhere: cannot open it", done.stderr)

    def test_manual(self):
        """troff has nothing to complain about, and each line it makes fits 80 columns."""
        page = os.path.join(self.prefix, "share/man/man1/dure.1")
        if not shutil.which("man"):
            self.skipTest("no man")
        done = subprocess.run(["man", "--warnings=w", "-l", page], capture_output=True, timeout=100,
                              env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8",
                                   "MAN_KEEP_FORMATTING": ""})
        if b"No manual entry" in done.stderr or done.returncode:
            self.skipTest("man cannot show a file here")
        self.assertEqual(done.stderr, b"")
        for line in done.stdout.decode().splitlines():
            self.assertLessEqual(len(line), 80, line)


if __name__ == "__main__":
    tap.main()
