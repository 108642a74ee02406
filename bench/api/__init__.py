"""What `import bench` offers: one distillation at a time in this process, and results as data frames."""
