"""Reading volumes and label maps: headers, voxels, geometry, and what is wrong with them."""
