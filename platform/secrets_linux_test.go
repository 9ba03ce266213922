package platform_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"smime-agent/platform"
	"smime-agent/platform/platformtest"
)

func TestSecretFiles(t *testing.T) {
	dirs := map[*testing.T]string{}
	platformtest.TestSecrets(t, func(t *testing.T) platform.SecretStore {
		if dirs[t] == "" {
			dirs[t] = t.TempDir()
		}
		return openSecrets(t, dirs[t])
	})
}

func openSecrets(t *testing.T, dir string) platform.SecretStore {
	t.Helper()
	s, err := platform.Secrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

func TestSecretFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	s := openSecrets(t, dir)
	if err := s.Put(t.Context(), "key", []byte("v")); err != nil {
		t.Fatal(err)
	}
	folder, file := filepath.Join(dir, "secrets"), filepath.Join(dir, "secrets", "key")
	wantMode(t, folder, fs.ModeDir|0o700)
	wantMode(t, file, 0o600)

	if err := errors.Join(os.Chmod(folder, 0o755), os.Chmod(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecrets(t, dir).Get(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	wantMode(t, folder, fs.ModeDir|0o700)
	wantMode(t, file, 0o600)
}

func TestSecretFilesRefuseLinks(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	s := openSecrets(t, dir)
	planted := filepath.Join(dir, "secrets", "key")
	target := filepath.Join(elsewhere, "target")
	if err := errors.Join(os.WriteFile(target, []byte("other's"), 0o600), os.Symlink(target, planted)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), "key"); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Get through a link: %q, %v, want ErrDenied", v, err)
	}
	if err := s.Put(t.Context(), "key", []byte("ours")); err != nil {
		t.Fatal(err)
	}
	wantMode(t, planted, 0o600) // the link was replaced, not followed
	if got, err := os.ReadFile(target); err != nil || string(got) != "other's" {
		t.Errorf("the link's target is now %q, %v", got, err)
	}
	// A link that stays inside the folder is one as well.
	if err := os.Symlink("key", filepath.Join(dir, "secrets", "alias")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(t.Context(), "alias"); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("Get through an inner link: %q, %v, want ErrDenied", v, err)
	}
}

func TestSecretsRefuseFolder(t *testing.T) {
	t.Run("link", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink(t.TempDir(), filepath.Join(dir, "secrets")); err != nil {
			t.Fatal(err)
		}
		if _, err := platform.Secrets(dir); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
	})
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "secrets"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := platform.Secrets(dir); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
	})
	t.Run("others can write above", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := platform.Secrets(dir); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
	})
	t.Run("another's", func(t *testing.T) {
		needRoot(t)
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "secrets"), 0o700), os.Chown(filepath.Join(dir, "secrets"), 1000, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := platform.Secrets(dir); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
	})
}

func TestSecretsHealAfterFolderIsGone(t *testing.T) {
	dir := t.TempDir()
	s := openSecrets(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "secrets")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "key"); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("Get: %v, want ErrNotFound", err)
	}
	if err := s.Put(t.Context(), "key", []byte("v")); err != nil {
		t.Error(err)
	}
}

func TestSecretsSweepLeftovers(t *testing.T) {
	dir := t.TempDir()
	openSecrets(t, dir)
	old := filepath.Join(dir, "secrets", ".writing-key-OLD")
	young := filepath.Join(dir, "secrets", ".writing-key-NEW")
	past := time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(young, nil, 0o600), os.Chtimes(old, past, past)); err != nil {
		t.Fatal(err)
	}
	openSecrets(t, dir)
	if _, err := os.Lstat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if _, err := os.Lstat(young); err != nil {
		t.Errorf("a file in the making was taken away: %v", err)
	}
}

// TestSecretsSurviveKill kills a writer at many moments; the value must always
// be one that was written, whole. It is a process kill, not a power loss.
func TestSecretsSurviveKill(t *testing.T) {
	if dir := os.Getenv("PLATFORM_TEST_WRITER"); dir != "" {
		writeForever(t, dir)
	}
	dir := t.TempDir()
	s := openSecrets(t, dir)
	for i := range 40 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSecretsSurviveKill$")
		cmd.Env = append(os.Environ(), "PLATFORM_TEST_WRITER="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(15+i) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		got, err := s.Get(t.Context(), "key")
		if errors.Is(err, platform.ErrNotFound) {
			continue
		}
		if err != nil || len(got) != 200_000 || len(bytes.Trim(got, string(got[:1]))) != 0 {
			t.Fatalf("after a kill: %d bytes, %v", len(got), err)
		}
	}
	if _, err := s.Get(t.Context(), "key"); err != nil {
		t.Errorf("no writer got as far as its first value: %v", err)
	}
}

func writeForever(t *testing.T, dir string) {
	s := openSecrets(t, dir)
	for i := 0; ; i++ {
		if err := s.Put(t.Context(), "key", bytes.Repeat([]byte{byte('a' + i%26)}, 200_000)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status.json")
	for _, perm := range []fs.FileMode{0o600, 0o644, 0o666} {
		if err := platform.WriteFile(path, []byte(perm.String()), perm); err != nil {
			t.Fatal(err)
		}
		wantMode(t, path, perm)
		if got, err := os.ReadFile(path); err != nil || string(got) != perm.String() {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if err := platform.WriteFile(filepath.Join(filepath.Dir(path), "none", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a missing folder: %v", err)
	}
	taken := filepath.Join(filepath.Dir(path), "folder")
	if err := os.MkdirAll(filepath.Join(taken, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := platform.WriteFile(taken, nil, 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".writing-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestReadTrusted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write := func(mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte("text"), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for mode, wantPrivate := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o644: false, 0o640: false, 0o604: false} {
		write(mode)
		data, private, err := platform.ReadTrusted(path, 100)
		if err != nil || string(data) != "text" || private != wantPrivate {
			t.Errorf("mode %o: %q, %v, %v", mode, data, private, err)
		}
	}
	for _, mode := range []fs.FileMode{0o620, 0o602, 0o666} {
		write(mode)
		if data, _, err := platform.ReadTrusted(path, 100); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("mode %o: %q, %v, want ErrDenied", mode, data, err)
		}
	}
	write(0o600)
	if _, _, err := platform.ReadTrusted(path, 3); err == nil {
		t.Error("a file over the limit was read")
	}
	if _, _, err := platform.ReadTrusted(path+"x", 3); !errors.Is(err, platform.ErrNotFound) {
		t.Errorf("no file: %v, want ErrNotFound", err)
	}
	if _, _, err := platform.ReadTrusted(dir, 100); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("a folder: %v, want ErrDenied", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("config.yaml", link); err != nil {
		t.Fatal(err)
	}
	if data, _, err := platform.ReadTrusted(link, 100); err != nil || string(data) != "text" {
		t.Errorf("our own link: %q, %v", data, err)
	}
	if err := errors.Join(os.Symlink("loop", filepath.Join(dir, "loop"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := platform.ReadTrusted(filepath.Join(dir, "loop"), 100); !errors.Is(err, platform.ErrDenied) {
		t.Errorf("a loop of links: %v, want ErrDenied", err)
	}
}

func TestReadTrustedRefusesOthers(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	path, link := filepath.Join(dir, "theirs"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 1000, 1000),
		os.Symlink("/etc/hostname", link), os.Lchown(link, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		if _, _, err := platform.ReadTrusted(p, 1000); !errors.Is(err, platform.ErrDenied) {
			t.Errorf("%s: %v, want ErrDenied", p, err)
		}
	}
}

func TestPrivateDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := platform.PrivateDir(path); err != nil {
			t.Fatal(err)
		}
		wantMode(t, path, fs.ModeDir|0o700)
		wantMode(t, filepath.Dir(path), fs.ModeDir|0o755)
	}
}
