package platform

import "os"

// On Linux the file's mode is what keeps a secret: 0600 in a folder 0700.

func sealSecret(_ string, value []byte) ([]byte, error)  { return value, nil }
func openSecret(_ string, sealed []byte) ([]byte, error) { return sealed, nil }

func checkSecret(f *os.File, path string) error { return restore(f, path, 0o600) }
