package platform

func serviceState(string) (string, error) { return "", ErrUnsupported }
