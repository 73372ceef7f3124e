//go:build race

package export

func init() { raceDetector = true }
