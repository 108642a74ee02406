"""ddbench from Python, in cells as in a notebook: distill, score, look, keep. Ten seconds on one core."""

# %% A data set: a name, a folder of images, or a mapping as in a sweep file
import bench as dd

data = dd.load_dataset("digits")
print(data)

# %% One distillation, the same to the last bit as in a sweep
distilled = dd.distill("dm", data, ipc=1, architecture="convnet-d2-w32", seed=0, steps=100)
images, targets = distilled.decode()  # as networks see them, [10, 1, 8, 8] and [10]
print(images.shape, targets.tolist())

# %% What it is worth: students trained on it, scored once on the test split
scored = dd.evaluate(distilled, data, protocol="quick", architecture="convnet-d2-w32", students=3)
print(scored)

# %% And what random real images are worth, at the same storage
real = dd.distill("random_real", data, ipc=1)
print(dd.evaluate(real, data, protocol="quick", architecture="convnet-d2-w32", students=3))

# %% Look at it, keep it, read it again
dd.show(distilled, data.classes, title="dm, one image per class", path="digits.png")
distilled.save("digits.safetensors")
again = dd.load("digits.safetensors")
print(again.n_stored, "floats")
